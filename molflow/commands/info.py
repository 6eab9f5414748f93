"""What is installed, for people and for bug reports."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def info(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is installed: versions, devices, extras, and the models that ship with what their cards say."""
    import json as text

    from rich.console import Console

    from molflow import installation

    found = installation.info()
    if json:
        print(text.dumps(found, indent=1))
    else:
        Console().print(*_tables(found), sep="\n")


def _tables(found: dict[str, Any]) -> list[Any]:
    from rich.table import Table

    about = Table(show_header=False, title=f"molflow {found['molflow']}", title_justify="left")
    for key, what in (("python", "Python"), ("commit", "commit"), ("folder", "installed in"),
                      ("weights", "models that ship"), ("data", "prepared data")):
        about.add_row(what, found[key] or "none")
    about.add_section()
    for section in ("packages", "devices"):
        for name, value in found[section].items():
            about.add_row(name, value)
        about.add_section()

    extras = Table("extra", "installed", "missing", title="Extras", title_justify="left")
    for extra, modules in found["extras"].items():
        missing = [name for name, version in modules.items() if version is None]
        there = ", ".join(f"{name} {version}" for name, version in modules.items() if version)
        extras.add_row(extra, there, ", ".join(missing))

    models = Table("model", "kind", "learnt from", "has seen", "figures on its card", title="Models",
                   title_justify="left")
    for name, one in found["models"].items():
        if "fault" in one:
            models.add_row(name, one["fault"])
        else:
            models.add_row(name, one["kind"], ", ".join(filter(None, (one["data"], one["part"]))), one["seen"],
                           _figures(one))
    return [about, extras, "pip install 'molflow[EXTRA]' brings what is missing.", models,
            "Figures: mean errors on molecules held out; of flows the loss."]


def _figures(model: dict[str, Any]) -> str:
    from molflow.nn.property import UNITS

    return ", ".join(f"{name} {value:.2g} {UNITS.get(name, '')}".strip() for name, value in model["metrics"].items())
