"""The folder of a run: where it may be put, and what is written into it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdkit import rdBase

from molflow import __version__, provenance
from molflow.molecules.io import write_sdf
from molflow.report.page import write_report
from molflow.report.pictures import DPI, draw_molecules, draw_optimisation
from molflow.report.reading import FORMAT, is_run
from molflow.report.trajectory import write_trajectory
from molflow.writing import check_writable, scratch

if TYPE_CHECKING:
    from molflow.designer import DesignRun


def check_folder(folder: Path, overwrite: bool) -> None:
    """See that ``save`` can put its folder there. ``overwrite`` replaces an older run and nothing else.

    Raises:
        FileExistsError: something stands there that may not be replaced.
        NotADirectoryError: nothing can be written beside ``folder``.
    """
    resolved = folder.resolve()
    if os.path.lexists(resolved):
        empty = resolved.is_dir() and not any(resolved.iterdir())
        if not (empty or is_run(resolved)):
            raise FileExistsError(f"{folder} exists and is not a run of molflow: choose another name")
        if not (empty or overwrite):
            raise FileExistsError(f"{folder} exists: choose another name or give --overwrite")
        if resolved.is_mount() or Path.cwd().is_relative_to(resolved):
            raise FileExistsError(f"{folder} cannot be replaced while it is in use: name a folder inside it")
    check_writable(folder)


def save(run: DesignRun, folder: Path, overwrite: bool) -> Path:
    """Write ``molecules.sdf``, ``trajectory.xyz``, ``results.csv``, ``run.json``, two pictures and ``report.html``.

    Where quantum chemistry was asked, ``relaxed.sdf`` has the geometries that its values are about.

    The folder appears when all of it is written, and an older run goes only then. Raises as ``check_folder``, and
    ValueError as ``write_sdf``.
    """
    check_folder(folder, overwrite)
    target = folder.resolve()  # a link to a folder stays one
    target.parent.mkdir(parents=True, exist_ok=True)
    work = scratch(target)
    new, old = work / "new", work / "old"
    try:
        new.mkdir(parents=True)
        _write(run, new)
        check_folder(folder, overwrite)  # somebody may have been quicker
        try:
            if target.exists():
                target.rename(old)
            new.rename(target)
        finally:
            if old.exists() and not target.exists():
                old.rename(target)
    except OSError as error:
        error.filename = str(folder)  # where the molecules were to be, not where they were on their way
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _write(run: DesignRun, folder: Path) -> None:
    from matplotlib import style

    write_sdf(folder / "molecules.sdf", run.molecules)
    if run.verdicts:
        write_sdf(folder / "relaxed.sdf", [verdict.annotated() for verdict in run.verdicts])
    if run.trajectory:
        write_trajectory(folder / "trajectory.xyz", run.trajectory)
    run.table.to_csv(folder / "results.csv", index=False)
    text = json.dumps(record(run), indent=1, default=lambda number: number.item())  # NumPy's numbers
    (folder / "run.json").write_text(text + "\n")
    with style.context("default"):  # whatever the user has set
        draw_molecules(run).savefig(folder / "molecules.png", dpi=DPI)
        draw_optimisation(run).savefig(folder / "optimisation.png", dpi=150)
    write_report(folder)


def record(run: DesignRun) -> dict[str, Any]:
    """All that is needed to repeat the run and to trust it, for ``run.json``."""
    weights = {role: {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
               for role, path in run.settings["weights"].items()}
    return {"format": FORMAT, "time": datetime.now(UTC).isoformat(timespec="seconds"), "molflow": __version__,
            "commit": provenance.commit(), "settings": {**run.settings, "weights": weights},
            "units": {name: run.units[name] for name in run.targets}, "warnings": run.warnings,
            "machine": {**provenance.machine(), "rdkit": rdBase.rdkitVersion}}
