"""The page of commands, made from the commands themselves while the site is built."""

from __future__ import annotations

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from molflow.cli import app


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add commands.md."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="molflow"), name="molflow")
    head = "# Commands\n\nPut `./run` in front of each, or activate `.venv`.\n"
    files.append(File.generated(config, "commands.md", content=text.replace("# `molflow`\n", head, 1)))
