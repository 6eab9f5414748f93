"""What a finished run leaves behind: a folder with molecules, table, settings and pictures, and a table to read."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from molflow import __version__, provenance
from molflow.molecules.convert import Molecule, sanitise
from molflow.molecules.io import write_sdf
from molflow.nn.property import UNITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from rich.console import Group

    from molflow.design import DesignRun

FORMAT = "molflow-run-1"
SHOWN = 48
"""Molecules in the grid of structures, at most."""

_CELL = 260, 190  # pixels of one structure
_LINE = 18  # pixels of a line of text below it
_DPI = 100


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise FileExistsError where ``save`` could not put its folder. With ``overwrite`` an older run may stand there,
    and nothing else: what molflow has not written it does not delete.

    Raises:
        FileExistsError: see above.
        NotADirectoryError, PermissionError: nothing can be written beside ``folder``.
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
    if not above.is_dir():
        raise NotADirectoryError(f"{folder} cannot be made: {above} is not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be made: {above} is read-only")


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
    check_folder(folder, overwrite)
    target = folder.resolve()  # a link to a folder stays one
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        write_sdf(new / "molecules.sdf", run.molecules)
        run.table.to_csv(new / "results.csv", index=False)
        (new / "run.json").write_text(json.dumps(record(run), indent=1, ensure_ascii=False, default=_plain) + "\n",
                                      encoding="utf-8")
        with _drawing():
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
    weights = {role: {"file": Path(path).name, "sha256": _sha256(Path(path))}
               for role, path in run.settings.get("weights", {}).items()}
    return {"format": FORMAT, "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": {**run.settings, "weights": weights},
            "units": {name: UNITS[name] for name in run.targets}, "warnings": run.warnings,
            "molflow": __version__, "commit": provenance.commit(), "rdkit": rdBase.rdkitVersion,
            "machine": provenance.machine()}


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # moved since: no reason to lose the run
        return None


def _plain(value: object) -> object:
    return value.name if isinstance(value, Path) else np.asarray(value).tolist()


def summary(run: DesignRun) -> Group:
    """The table printed at the end. Means are over all molecules, the broken ones included.

    `unique` counts distinct SMILES of valid molecules.
    """
    from rich.console import Group
    from rich.table import Table

    n = len(run.molecules)
    table = Table("property", "target", "achieved\nby evaluator", "mean miss\nby evaluator", "mean miss\nby guide")
    for name, target in run.targets.items():
        judged, guided = _column(run, f"evaluator_{name}"), _column(run, f"guide_{name}")
        spread = f" ± {judged.std(ddof=1):.3f}" if len(judged) > 1 else ""
        table.add_row(name, f"{target:.3f} {_unit(name)}", f"{_mean(judged):.3f}{spread}",
                      f"{_mean(abs(judged - target)):.3f}", f"{_mean(abs(guided - target)):.3f}")
    valid = [molecule.smiles for molecule in run.molecules if molecule.is_valid]
    unread = n - min((len(_column(run, f"evaluator_{name}")) for name in run.targets), default=n)
    line = (f"valid {len(valid)}/{n}, unique {len(set(valid))}/{n}, {_mean(_column(run, 'nfe')):.0f} NFE a molecule, "
            f"{run.settings.get('seconds', math.nan):.0f} s")
    if unread:
        line += f"; {unread} too broken for a value, not in the means"
    return Group(table, line)


def _column(run: DesignRun, key: str) -> NDArray[np.float64]:
    """The finite values of a property: a diverged molecule has none."""
    values = np.array([molecule.properties.get(key, math.nan) for molecule in run.molecules], dtype=float)
    return values[np.isfinite(values)]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _unit(name: str) -> str:
    return UNITS[name].replace("^3", "³")


@contextmanager
def _drawing() -> Iterator[None]:
    """Matplotlib as it comes, whatever the user's own settings are."""
    from matplotlib import style

    with style.context("default"):
        yield


def draw_molecules(run: DesignRun) -> Figure:
    """Grid of the first ``SHOWN`` structures, hydrogens of valid ones implied, with the evaluator's values."""
    import matplotlib.image
    from matplotlib.figure import Figure

    shown = run.molecules[:SHOWN]
    columns = min(max(math.ceil(math.sqrt(len(shown))), 1), 6)
    rows = math.ceil(len(shown) / columns)
    lines = 1 + any(molecule.fault for molecule in shown) + len(run.targets)
    (wide, high), top = _CELL, 3 * _LINE
    pitch = high + (lines + 1) * _LINE
    width, height = max(columns, 2) * wide, rows * pitch + top  # the title needs two
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

    def write(x: float, y: float, text: str, points: float = 9, colour: str = "black") -> None:
        """Pixels from the upper left corner."""
        figure.text(x / width, 1 - y / height, text, ha="center", va="top", fontsize=points, color=colour)

    what = f"first {len(shown)} of {len(run.molecules)} molecules"
    what = what if len(shown) < len(run.molecules) else f"{len(shown)} molecule{'s' * (len(shown) != 1)}"
    write(width / 2, 12, f"{what}, evaluator's value (target)", points=12)
    for i, molecule in enumerate(shown):
        left, above = (width - columns * wide) // 2 + i % columns * wide, top + i // columns * pitch
        picture = _structure(molecule)
        if picture is not None:
            pixels = matplotlib.image.imread(io.BytesIO(picture))
            figure.figimage(pixels, left, height - above - high)  # counted from below
        else:
            write(left + wide / 2, above + high / 2, "cannot be drawn", colour="grey")
        name = f"{i + 1}: {molecule.fault}" if molecule.fault else str(i + 1)
        said = textwrap.wrap(name, 38, max_lines=2, placeholder=" …")
        for row, text in enumerate(said):
            write(left + wide / 2, above + high + row * _LINE, text, colour="firebrick" if molecule.fault else "black")
        for row, (prop, target) in enumerate(run.targets.items(), start=len(said)):
            value = float(molecule.properties.get(f"evaluator_{prop}", math.nan))
            write(left + wide / 2, above + high + row * _LINE, f"{prop} {value:.2f} ({target:.2f}) {_unit(prop)}")
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
            mol.UpdatePropertyCache(strict=False)
            Chem.FastFindRings(mol)
            rdDepictor.Compute2DCoords(mol)
            if sanitised is not None:
                mol = rdMolDraw2D.PrepareMolForDrawing(mol)
            canvas = rdMolDraw2D.MolDraw2DCairo(*_CELL)
            canvas.drawOptions().prepareMolsBeforeDrawing = False
            canvas.drawOptions().fixedBondLength = 35
            canvas.DrawMolecule(mol)
            canvas.FinishDrawing()
            return canvas.GetDrawingText()
        except (ValueError, RuntimeError, Chem.MolSanitizeException):
            return None


def draw_optimisation(run: DesignRun) -> Figure:
    """Left: the loss of every molecule over the descent. Right: a row for each target, where every molecule ended."""
    from matplotlib.figure import Figure

    rows = len(run.targets)
    figure = Figure(figsize=(11, max(4.5, 1 + 2 * rows)), layout="constrained")
    grid = figure.add_gridspec(rows, 2, width_ratios=(1, 1.3))
    left, right = figure.add_subplot(grid[:, 0]), [figure.add_subplot(grid[row, 1]) for row in range(rows)]
    _draw_losses(left, run.history)
    for name, axes in zip(run.targets, right, strict=True):
        _draw_values(axes, run, name)
    for axes in (left, right[0]):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize="small")
    return figure


def _draw_losses(axes: Axes, history: NDArray[np.float64]) -> None:
    """history (rounds, n); a broken molecule's loss is infinite: it counts in the median and has no line."""
    finite = np.where(np.isfinite(history), np.maximum(history, 1e-9), np.nan)
    middle = np.median(np.where(np.isnan(finite), np.inf, finite), axis=1)
    middle[np.isinf(middle)] = np.nan
    rounds = np.arange(len(history))
    lines = axes.plot(rounds, finite, color="tab:blue", alpha=min(0.6, 0.1 + 10 / history.shape[1]), lw=1, marker=".")
    never = np.isnan(finite).all(0).sum()
    lines[0].set_label("a molecule" + (f" ({never} never whole, without a loss)" if never else ""))
    axes.plot(rounds, middle, color="black", lw=2.5, marker="o", ms=4, label="median")
    if np.isfinite(finite).any():
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(_integers())
    axes.set(xlim=(-0.5, len(history) - 0.5), xlabel="round of the descent (0: best of the draws)",
             ylabel="lowest loss so far, by the guide\nΣ (miss / resolution)²")


def _draw_values(axes: Axes, run: DesignRun, name: str) -> None:
    target, number = run.targets[name], np.arange(1, len(run.molecules) + 1)
    guide, judged = (np.array([float(m.properties.get(f"{who}_{name}", math.nan)) for m in run.molecules])
                     for who in ("guide", "evaluator"))
    valid = np.array([m.is_valid for m in run.molecules], dtype=bool)
    if np.isfinite(judged[valid]).any():  # what a broken molecule is said to have may be anywhere
        reach = 2 * np.nanmax(abs(judged[valid] - target)) + 1e-3
        guide, judged = guide.clip(target - reach, target + reach), judged.clip(target - reach, target + reach)
    axes.axvline(target, color="firebrick", lw=1.5, zorder=0, label="target")
    axes.scatter(guide, number, marker="|", s=30, color="dimgrey", lw=1.2, label="guide")
    axes.scatter(judged[valid], number[valid], s=16, color="tab:blue", label="evaluator")
    if not valid.all():
        axes.scatter(judged[~valid], number[~valid], s=22, marker="x", color="darkorange", lw=1.2,
                     label="evaluator, not valid (far ones at the edge)")
    axes.yaxis.set_major_locator(_integers())
    axes.set(xlabel=f"{name} / {_unit(name)}", ylabel="molecule", ylim=(len(number) + 0.7, 0.3))


def _integers() -> MaxNLocator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True, min_n_ticks=1)
