"""Campaigns: many molecules for many targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from molflow.commands.console import live


class RunByDefault(TyperGroup):
    """`campaign FILE` is short for `campaign run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(no_args_is_help=True, cls=RunByDefault,
                  help="Design and verify many molecules for many targets: `campaign FILE` begins, or goes on.")

Specification = Annotated[Path, typer.Argument(help="YAML file: name, targets, molecules and more.")]


@app.command("run")
def run_campaign(spec: Specification) -> None:
    """Begin a campaign, or go on with it after any stop. Results are in its database, for `ase db`."""
    from molflow import campaign

    with live() as tell:
        done = campaign.run(spec, progress=tell)
    print(done)


@app.command("status")
def campaign_status(spec: Specification) -> None:
    """Say how far a campaign is, from its database: while it runs, too, and from another machine."""
    from molflow import campaign

    print(campaign.status(spec))
