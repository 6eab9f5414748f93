"""Pictures, as PNG, of generated molecules and of how they compare with real ones."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from benchmarks.distributions import Features, common
from molflow.molecules.convert import Molecule, sanitise
from molflow.molecules.labels import DRUGLIKE
from molflow.nn.property import UNITS

COLUMNS, KINDS = 4, 9  # plots side by side; kinds of bonds, and of angles, that are shown
SYMBOL = {"alpha": "α", "gap": "gap", "homo": "HOMO", "lumo": "LUMO", "mu": "μ", "cv": "Cv", "qed": "QED",
          "logp": "log P", "tpsa": "polar surface", "sa": "synthetic accessibility", "mw": "molar mass"}
_PANEL, _ACROSS = (250, 224), 6  # pixels of a structure with its legend; structures side by side
_BROKEN = (1.0, 0.80, 0.78)


def histograms(made: Features, real: Features, strains: tuple[Sequence[float], Sequence[float]]) -> bytes:
    """Every distribution of valid generated molecules over that of real ones; last the strains of either, kcal/mol."""
    plots: list[Callable[[Axes], None]] = [
        lambda axes: _bars(axes, _shares(made.sizes), _shares(real.sizes), "atoms in a molecule", "share of molecules"),
        lambda axes: _bars(axes, _each(made.rings, made), _each(real.rings, real), "atoms in a ring",
                           "rings a molecule"),
    ]

    def add(title: str, unit: str, ours: Sequence[float], theirs: Sequence[float], **how: Any) -> None:
        plots.append(lambda axes: _curves(axes, ours, theirs, title, unit, **how))

    for kind in common(real.lengths)[:KINDS]:
        add(f"{kind} length", "Å", made.lengths.get(kind, []), real.lengths[kind])
    for kind in common(real.angles)[:KINDS]:
        add(f"angle at {kind}", "degrees", made.angles.get(kind, []), real.angles[kind])
    for name, values in real.properties.items():
        unit = (UNITS | DRUGLIKE)[name].replace("^3", "³").replace("^2", "²")
        add(SYMBOL[name], unit, made.properties.get(name, []), values)
    add("strain by xTB", "kcal/mol", *strains, log=True)

    rows = math.ceil(len(plots) / COLUMNS)
    with style.context("default"):  # whatever the user has set
        figure = Figure(figsize=(3.5 * COLUMNS, 2.6 * rows + 0.6), layout="constrained")
        for place, draw in enumerate(plots, start=1):
            draw(figure.add_subplot(rows, COLUMNS, place))
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=12)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=110)
    return png.getvalue()


def _shares(values: Sequence[int]) -> dict[int, float]:
    kinds, counts = np.unique(values, return_counts=True)
    return dict(zip(kinds.tolist(), (counts / max(len(values), 1)).tolist(), strict=True))


def _each(counts: Mapping[int, int], features: Features) -> dict[int, float]:
    return {kind: count / len(features.sizes) for kind, count in counts.items()}


def _label(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _bars(axes: Axes, made: Mapping[int, float], real: Mapping[int, float], xlabel: str, ylabel: str) -> None:
    axes.bar(list(real), list(real.values()), 0.9, color="0.8", label="real, test split")
    axes.bar(list(made), list(made.values()), 0.4, color="tab:blue", label="generated, valid ones")
    axes.locator_params("x", integer=True)
    _label(axes, xlabel, ylabel)


def _curves(axes: Axes, made: Sequence[float], real: Sequence[float], title: str, unit: str, log: bool = False) -> None:
    """Densities. The window holds all but 1 % of the two together, and the rest stands in its first and last bin."""
    both = [np.asarray(values, float) for values in (real, made)]
    if log:
        both = [np.log10(values.clip(1e-2)) for values in both]
    low, high = np.quantile(np.concatenate(both), [0.005, 0.995])
    bins = int(np.clip(math.sqrt(min(map(len, both))) * 2, 10, 60))
    edges = np.linspace(low - 1e-6, high + 1e-6, bins + 1)
    styles: tuple[dict[str, Any], ...] = ({"fill": True, "color": "0.8"}, {"color": "tab:blue", "lw": 1.4})
    for values, how in zip(both, styles, strict=True):
        if len(values):
            axes.stairs(np.histogram(values.clip(low, high), edges, density=True)[0], edges, **how)
    axes.locator_params("x", nbins=6, integer=log)
    if log:
        axes.xaxis.set_major_formatter(lambda value, _: f"{10**value:g}")
    axes.set_yticks([])
    _label(axes, f"{title} / {unit}" if unit else title, "density")


def structures(molecules: Sequence[Molecule]) -> bytes:
    """A grid of structures, hydrogens of valid ones implied, broken ones as they are, shaded and with their fault."""
    wide, high = _PANEL
    across = min(_ACROSS, len(molecules))
    page = Image.new("RGB", (wide * across, high * math.ceil(len(molecules) / across)), "white")
    for i, molecule in enumerate(molecules):
        place = i % across * wide, i // across * high
        legend = "\n".join(textwrap.wrap(f"{i + 1}: {molecule.fault}".rstrip(": "), 38, max_lines=2, placeholder=" …"))
        if (picture := _structure(molecule, legend)) is not None:
            page.paste(Image.open(io.BytesIO(picture)), place)
        else:
            text = f"cannot be drawn\n\n{legend}"
            ImageDraw.Draw(page).text((place[0] + wide / 2, place[1] + high / 2), text, "grey", anchor="mm",
                                      align="center", font_size=13)
    png = io.BytesIO()
    page.save(png, format="png")
    return png.getvalue()


def _structure(molecule: Molecule, legend: str) -> bytes | None:
    """PNG of a structure with a text below it; None if RDKit cannot draw it."""
    mol = molecule.to_rdkit()
    sanitised, _ = sanitise(mol)
    if sanitised is not None:
        Chem.AssignStereochemistryFrom3D(sanitised)
        mol = Chem.RemoveHs(sanitised)
    sound = sanitised is not None
    canvas = rdMolDraw2D.MolDraw2DCairo(*_PANEL)
    options: Any = canvas.drawOptions()  # RDKit's type stubs are wrong
    options.prepareMolsBeforeDrawing, options.fixedBondLength = False, 32
    options.legendFontSize, options.legendFraction = 13, 0.16
    options.standardColoursForHighlightedAtoms = True
    options.setHighlightColour(_BROKEN)
    try:
        with rdBase.BlockLogs():
            mol = rdMolDraw2D.PrepareMolForDrawing(mol, sound, sound, sound, forceCoords=True)
            canvas.DrawMolecule(mol, highlightAtoms=[] if sound else range(mol.GetNumAtoms()), legend=legend)
            canvas.FinishDrawing()
    except (ValueError, RuntimeError):
        return None
    return canvas.GetDrawingText()
