"""What the commands have in common: options, refusals, progress, molecules in, tables out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molflow.writing import check_writable, written_whole

if TYPE_CHECKING:
    import pandas as pd

Seed = Annotated[int, typer.Option(help="Drives everything: same seed, same machine, same molecules.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Atoms = Annotated[int | None, typer.Option(help="Size of every molecule, hydrogens counted.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Model = Annotated[str, typer.Option(help="qm9: up to nine heavy atoms. moses3d: drug-like.")]
Weights = Annotated[Path | None, typer.Option(help="File of weights instead of the model's.")]


LONGEST = 500
"""Letters of what is said in one line."""


def printable(text: str) -> str:
    """Text of strangers, for a terminal: what would move its cursor or turn its direction is spelt out, and the middle
    of what is too long left out."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2 - 2]} … {text[2 - LONGEST // 2 :]}"


class InputError(Exception):
    """What the user gave cannot be used; the message is the whole answer."""


def check_free(overwrite: bool, *files: Path | None) -> None:
    """Raise InputError where one of the files to be written exists already and may not be overwritten, or cannot be
    put there."""
    for file in filter(None, files):
        if file.is_dir():
            raise InputError(f"{file} is a folder: name a file")
        if file.exists() and not overwrite:
            raise InputError(f"{file} exists: choose another name or give --overwrite")
        check_writable(file)


@contextmanager
def live() -> Iterator[Callable[[str, float], None]]:
    """A progress display on stderr that shows one phase after the other."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    bars = Progress(TextColumn("{task.description:>12}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                    TimeElapsedColumn(), console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def tell(what: str, share: float) -> None:
        bars.start()
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=1.0)
        bars.update(tasks[what], completed=share)

    try:
        yield tell
    finally:
        if tasks:  # a display that never was would leave an empty line
            bars.stop()


def read(file: Path) -> list:
    """Molecules of a file; broken records are named on stderr. Raises ValueError if none is left."""
    from molflow.molecules import io

    molecules, skipped = io.read(file)
    for record in skipped:
        print(printable(f"molflow: skipped record {record.record} ({record.name or 'unnamed'}): {record.reason}"),
              file=sys.stderr)
    if skipped:
        print(f"molflow: skipped {len(skipped)} of {len(skipped) + len(molecules)} records", file=sys.stderr)
    if not molecules:
        raise InputError(f"{file} holds no molecule that can be read")
    return molecules


def deliver(table: pd.DataFrame, out: Path | None) -> None:
    """Write a table to a CSV file, whole or not at all, or print it; text of strangers as `molflow.molecules.io.cell`
    has it."""
    from molflow.molecules.io import cell

    table = table.map(cell).rename(columns=cell)
    if out:
        with written_whole(out) as temporary:
            table.to_csv(temporary, index=False)
        print(f"{len(table)} molecules, written to {out}")
    else:
        print(table.round(4).to_csv(index=False), end="")
