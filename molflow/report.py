"""What a finished run leaves behind: a folder with molecules, table, settings and pictures, and a table to read."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from molflow import __version__, provenance
from molflow.molecules.convert import Molecule, sanitise
from molflow.molecules.io import write_sdf
from molflow.nn.property import UNITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Group

    from molflow.designer import DesignRun

FORMAT = "molflow-run-1"
SHOWN = 48  # molecules in the grid of structures, at most
_CELL, _LINE, _DPI = (260, 190), 18, 100  # pixels of a structure, of a line of text below it, of an inch


def check_folder(folder: Path, overwrite: bool) -> None:
    """See that ``save`` can put its folder there. ``overwrite`` replaces an older run and nothing else.

    Raises:
        FileExistsError: something stands there that may not be replaced.
        NotADirectoryError: nothing can be written beside ``folder``.
    """
    resolved = folder.resolve()
    if os.path.lexists(resolved):
        empty = resolved.is_dir() and not any(resolved.iterdir())
        if not (empty or _is_run(resolved)):
            raise FileExistsError(f"{folder} exists and is not a run of molflow: choose another name")
        if not (empty or overwrite):
            raise FileExistsError(f"{folder} exists: choose another name or give --overwrite")
        if resolved.is_mount() or Path.cwd().is_relative_to(resolved):
            raise FileExistsError(f"{folder} cannot be replaced while it is in use: name a folder inside it")
    above = next(parent for parent in resolved.parents if os.path.lexists(parent))
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise NotADirectoryError(f"{folder} cannot be made: {above} is not a folder that can be written to")


def _is_run(folder: Path) -> bool:
    try:
        return json.loads((folder / "run.json").read_bytes())["format"] == FORMAT
    except (OSError, ValueError, TypeError, KeyError):
        return False


def save(run: DesignRun, folder: Path, overwrite: bool) -> Path:
    """Write ``molecules.sdf``, ``results.csv``, ``run.json``, ``molecules.png`` and ``optimisation.png``.

    The folder appears when all of it is written, and an older run goes only then. Raises as ``check_folder``, and
    ValueError as ``write_sdf``.
    """
    from matplotlib import style

    check_folder(folder, overwrite)
    target = folder.resolve()  # a link to a folder stays one
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        write_sdf(new / "molecules.sdf", run.molecules)
        run.table.to_csv(new / "results.csv", index=False)
        text = json.dumps(record(run), indent=1, default=lambda number: number.item())  # NumPy's numbers
        (new / "run.json").write_text(text + "\n")
        with style.context("default"):  # whatever the user has set
            draw_molecules(run).savefig(new / "molecules.png", dpi=_DPI)
            draw_optimisation(run).savefig(new / "optimisation.png", dpi=150)
        check_folder(folder, overwrite)  # somebody may have been quicker
        try:
            if target.exists():
                target.rename(old)
            new.rename(target)
        finally:
            if old.exists() and not target.exists():
                old.rename(target)
    return folder


def record(run: DesignRun) -> dict[str, Any]:
    """All that is needed to repeat the run and to trust it, for ``run.json``."""
    weights = {role: {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
               for role, path in run.settings["weights"].items()}
    return {"format": FORMAT, "time": datetime.now(UTC).isoformat(timespec="seconds"), "molflow": __version__,
            "commit": provenance.commit(), "settings": {**run.settings, "weights": weights},
            "units": {name: UNITS[name] for name in run.targets}, "warnings": run.warnings,
            "machine": {**provenance.machine(), "rdkit": rdBase.rdkitVersion}}


def summary(run: DesignRun) -> Group:
    """The table printed at the end. Means include broken molecules; unique counts SMILES of valid ones."""
    from rich.console import Group
    from rich.table import Table

    n = len(run.molecules)
    table = Table("property", "target", "achieved\nby evaluator", "mean miss\nby evaluator", "mean miss\nby guide")
    unread = 0
    for name, target in run.targets.items():
        judged, guided = (_finite(_column(run, f"{who}_{name}")) for who in ("evaluator", "guide"))
        unread = max(unread, n - len(judged))
        spread = f" ± {judged.std(ddof=1):.3f}" if len(judged) > 1 else ""
        table.add_row(name, f"{target:.3f} {_unit(name)}", f"{_mean(judged)}{spread}", _mean(abs(judged - target)),
                      _mean(abs(guided - target)))
    valid = [molecule.smiles for molecule in run.molecules if molecule.is_valid]
    notes = [f"valid {len(valid)}/{n}, unique {len(set(valid))}/{n}, {_column(run, 'nfe').mean():.0f} NFE a molecule, "
             f"{run.settings['seconds']:.0f} s"]
    if unread:
        notes.append(f"{unread} too broken to have values: not in the means")
    return Group(table, *notes)


def _mean(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.3f}" if len(values) else "none"


def _value(molecule: Molecule, key: str) -> float:
    return float(molecule.properties.get(key, math.nan))


def _column(run: DesignRun, key: str) -> NDArray[np.float64]:
    return np.array([_value(molecule, key) for molecule in run.molecules])


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _unit(name: str) -> str:
    return UNITS[name].replace("^3", "³")


def draw_molecules(run: DesignRun) -> Figure:
    """Grid of the first ``SHOWN`` structures, hydrogens of valid ones implied, with the evaluator's values."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    n, shown = len(run.molecules), run.molecules[:SHOWN]
    columns = min(math.ceil(math.sqrt(len(shown))), 6)
    lines = 1 + any(molecule.fault for molecule in shown) + len(run.targets)
    (wide, high), top = _CELL, 3 * _LINE
    pitch = high + (lines + 1) * _LINE
    width, height = max(columns, 2) * wide, math.ceil(len(shown) / columns) * pitch + top  # the title needs two
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

    def write(x: float, y: float, text: str, colour: str = "black", points: int = 9) -> None:  # pixels from upper left
        figure.text(x / width, 1 - y / height, text, ha="center", va="top", fontsize=points, color=colour)

    what = f"first {SHOWN} of {n} molecules" if n > SHOWN else f"{n} molecule{'s' * (n != 1)}"
    write(width / 2, 12, f"{what}, evaluator's value (target)", points=12)
    for i, molecule in enumerate(shown):
        left, above = (width - columns * wide) // 2 + i % columns * wide, top + i // columns * pitch
        centre, below, colour = left + wide / 2, above + high, "firebrick" if molecule.fault else "black"
        if (picture := _structure(molecule)) is not None:
            figure.figimage(imread(io.BytesIO(picture)), left, height - below)
        else:
            write(centre, above + high / 2, "cannot be drawn", "grey")
        title = textwrap.wrap(f"{i + 1}: {molecule.fault}".rstrip(": "), 38, max_lines=2, placeholder=" …")
        values = [f"{name} {_value(molecule, f'evaluator_{name}'):.2f} ({target:.2f}) {_unit(name)}"
                  for name, target in run.targets.items()]
        for row, text in enumerate(title + values):
            write(centre, below + row * _LINE, text, colour if row < len(title) else "black")
    return figure


def _structure(molecule: Molecule) -> bytes | None:
    """PNG of a structure, a broken one exactly as it was generated; None if RDKit cannot."""
    with rdBase.BlockLogs():
        try:
            mol = molecule.to_rdkit()
            sanitised, _ = sanitise(mol)
            if sanitised is not None:
                Chem.AssignStereochemistryFrom3D(sanitised)
                mol = Chem.RemoveHs(sanitised)
            canvas = rdMolDraw2D.MolDraw2DCairo(*_CELL)
            options: Any = canvas.drawOptions()  # RDKit's type stubs are wrong
            options.prepareMolsBeforeDrawing, options.fixedBondLength = False, 35
            sound = sanitised is not None
            canvas.DrawMolecule(rdMolDraw2D.PrepareMolForDrawing(mol, sound, sound, sound, forceCoords=True))
            canvas.FinishDrawing()
            return canvas.GetDrawingText()
        except (ValueError, RuntimeError, Chem.MolSanitizeException):
            return None


def draw_optimisation(run: DesignRun) -> Figure:
    """A row for each target. Left: the property over the descent, molecule by molecule. Right: where each ended."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1 + max(3.5, 2.6 * len(run.targets))), layout="constrained")
    grid = figure.add_gridspec(len(run.targets), 2, width_ratios=(1, 1.3))
    for row, name in enumerate(run.targets):
        _draw_course(figure.add_subplot(grid[row, 0]), run, row, name)
        _draw_values(figure.add_subplot(grid[row, 1]), run, name)
    for axes in figure.axes[:2]:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize="small")
    return figure


def _draw_course(axes: Axes, run: DesignRun, row: int, name: str) -> None:
    """The guide's reading at the lowest loss so far; a molecule that was never whole has none."""
    course = np.where(np.isfinite(run.history), run.course[:, :, row], np.nan)
    alpha = min(0.7, 0.1 + 10 / course.shape[1])
    axes.axhline(run.targets[name], color="firebrick", lw=1.5, zorder=0, label="target")
    lines = axes.plot(course, color="tab:blue", alpha=alpha, lw=1, marker=".", ms=4)
    never = np.isnan(course).all(0).sum()
    lines[0].set_label("a molecule" + (f" ({never} never whole)" if never else ""))
    axes.locator_params("x", integer=True, min_n_ticks=1)
    axes.set(xlim=(-0.5, len(course) - 0.5), xlabel="round of the descent (0: best of the draws)",
             ylabel=f"{name} by the guide / {_unit(name)}")


def _draw_values(axes: Axes, run: DesignRun, name: str) -> None:
    target, number = run.targets[name], np.arange(1, len(run.molecules) + 1)
    guide, judged = _column(run, f"guide_{name}"), _column(run, f"evaluator_{name}")
    valid = np.array([molecule.is_valid for molecule in run.molecules])
    misses = _finite(np.abs(np.append(guide[valid], judged[valid]) - target))
    if len(misses):  # what the networks say of a broken molecule may lie anywhere
        reach = 2 * misses.max() + 1e-3
        guide, judged = guide.clip(target - reach, target + reach), judged.clip(target - reach, target + reach)
    axes.axvline(target, color="firebrick", lw=1.5, zorder=0, label="target")
    axes.scatter(guide, number, marker="|", s=30, color="dimgrey", lw=1.2, label="guide")
    axes.scatter(judged[valid], number[valid], s=16, color="tab:blue", label="evaluator")
    if not valid.all():
        axes.scatter(judged[~valid], number[~valid], s=22, marker="x", color="darkorange", lw=1.2,
                     label="not valid (far ones at the edge)")
    axes.locator_params("y", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
    axes.set(xlabel=f"{name} / {_unit(name)}", ylabel="molecule", ylim=(len(number) + 0.7, 0.3))
