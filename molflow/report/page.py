"""A run as one HTML file that needs nothing else, and as a table for a notebook."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from molflow.report import content
from molflow.report.drawing import svg
from molflow.report.figures import number, readings, unit
from molflow.report.pictures import SHOWN
from molflow.report.reading import SavedRun, read_run
from molflow.writing import written_whole

if TYPE_CHECKING:
    from molflow.designer import DesignRun

_WEB = Path(__file__).parent / "web"


def write_report(folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None,
                 overwrite: bool = False) -> Path:
    """Write the page of a run: what was asked, what came out, every molecule flat and in 3D.

    Args:
        folder: of the run, as ``DesignRun.save`` and ``molflow design`` write it.
        out: HTML file to write; by default ``report.html`` in the folder.
        overwrite: replace the file if it is there.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is no such folder, or a file is missing from it.
        FileExistsError: the HTML file exists.
        IsADirectoryError: it is a folder.
        ValueError: the folder is not a run of molflow, or damaged.
    """
    target = Path(out) if out is not None else Path(folder) / "report.html"
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder: name a file")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists: choose another name or give --overwrite")
    text = page(read_run(Path(folder)))
    with written_whole(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def page(run: SavedRun) -> str:
    """The HTML text. What comes from files is escaped, and nothing but the page's own scripts may run or load."""
    with np.errstate(over="ignore", invalid="ignore"):  # numbers from files may be of any size
        return _page(run)


def _page(run: SavedRun) -> str:
    columns, rows = content.table(run)
    scripts = [(_WEB / name).read_text(encoding="utf-8") for name in ("3Dmol-min.js", "page.js")]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    data = {
        "molecules": [{**content.scene(molecule), "fields": [[key, content.shown(value)] for key, value in
                                                             fields.items()]}
                      for molecule, fields in zip(run.molecules, run.fields, strict=True)],
        "frames": [{**content.scene(frame), "t": frame.properties["t"]} for frame in run.trajectory],
        "sdf": base64.b64encode(run.sdf).decode(),
    }
    return _environment().get_template("page.html").render(
        run=run, asked=content.asked(run), outcome=content.outcome(run), charts=content.charts(run),
        readings=readings(run.fields, run.targets, run.own), unit=partial(unit, units=run.units), columns=columns,
        rows=rows, data=data, scripts=scripts, hashes=hashes, command=content.command(run.record["settings"]),
        circumstances=content.circumstances(run),
        animated=int(number(run.trajectory[0].properties["molecule"])) if run.trajectory else None,
        course=base64.b64encode(run.course).decode(), style=(_WEB / "page.css").read_text(encoding="utf-8"),
        licence=(_WEB / "3Dmol-LICENSE.txt").read_text(encoding="utf-8"))


def notebook_table(run: DesignRun) -> str:
    """The first ``SHOWN`` molecules with drawings and the evaluator's values, as an HTML table."""
    return _environment().get_template("notebook.html").render(
        molecules=[(molecule, svg(molecule)) for molecule in run.molecules[:SHOWN]], n=len(run.molecules),
        targets=run.targets, unit=partial(unit, units=run.units), own=run.settings.get("properties", {}))


def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(names=content.NAMES, number=number)
    return environment
