"""The page of commands, made from the commands themselves while the site is built."""

from __future__ import annotations

import re

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from molflow.cli import app

HEAD = """# Commands

Put `./run` in front of each, or activate `.venv`. `molflow COMMAND --help` says the same as this page.

"""

LIST = re.compile(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n?")
"""Commands of a group with the first words of what they do: they follow in full."""


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add commands.md."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="molflow"), name="molflow")
    text = LIST.sub("", text[text.index("\n## ") + 1 :])
    files.append(File.generated(config, "commands.md", content=HEAD + text))
