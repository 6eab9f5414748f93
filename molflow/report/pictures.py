"""Two pictures of a run: its structures, and how the optimisation went."""

from __future__ import annotations

import io
import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from molflow.report.drawing import CELL, png
from molflow.report.figures import column, number, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from molflow.designer import DesignRun

SHOWN = 48  # molecules in the grid of structures, at most
DPI = 100
LEAST = 1e-3  # of the miss that is drawn, the rest being rounding
_LINE = 18  # pixels of a line of text below a structure


def draw_molecules(run: DesignRun) -> Figure:
    """Grid of the first ``SHOWN`` structures, hydrogens of valid ones implied, with the evaluator's values."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    n, shown = len(run.molecules), run.molecules[:SHOWN]
    columns = min(math.ceil(math.sqrt(len(shown))), 6)
    lines = 1 + any(molecule.fault for molecule in shown) + len(run.targets)
    (wide, high), top = CELL, 3 * _LINE
    pitch = high + (lines + 1) * _LINE
    width, height = max(columns, 2) * wide, math.ceil(len(shown) / columns) * pitch + top  # the title needs two
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def write(x: float, y: float, text: str, colour: str = "black", points: int = 9) -> None:  # pixels from upper left
        figure.text(x / width, 1 - y / height, text, ha="center", va="top", fontsize=points, color=colour)

    what = f"first {SHOWN} of {n} molecules" if n > SHOWN else f"{n} molecule{'s' * (n != 1)}"
    write(width / 2, 12, f"{what}, evaluator's value (target)", points=12)
    for i, molecule in enumerate(shown):
        left, above = (width - columns * wide) // 2 + i % columns * wide, top + i // columns * pitch
        centre, below, colour = left + wide / 2, above + high, "firebrick" if molecule.fault else "black"
        if (picture := png(molecule)) is not None:
            figure.figimage(imread(io.BytesIO(picture)), left, height - below)
        else:
            write(centre, above + high / 2, "cannot be drawn", "grey")
        title = textwrap.wrap(f"{i + 1}: {molecule.fault}".rstrip(": "), 38, max_lines=2, placeholder=" …")
        values = [f"{name} {number(molecule.properties.get(f'evaluator_{name}')):.2f} ({goal}) {unit(name)}"
                  for name, goal in run.targets.items()]
        for row, text in enumerate(title + values):
            write(centre, below + row * _LINE, text, colour if row < len(title) else "black")
    return figure


def draw_optimisation(run: DesignRun) -> Figure:
    """Left: what each molecule still misses, round by round. Right, a row for each target: where each ended."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1 + max(3.5, 2.6 * len(run.targets))), layout="constrained")
    grid = figure.add_gridspec(len(run.targets), 2, width_ratios=(1, 1.3))
    _draw_course(figure.add_subplot(grid[:, 0]), run)
    for row, name in enumerate(run.targets):
        _draw_values(figure.add_subplot(grid[row, 1]), run, name)
    for axes in figure.axes[:2]:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize="small")
    return figure


def _draw_course(axes: Axes, run: DesignRun) -> None:
    """A molecule that was never whole has no line."""
    from matplotlib.ticker import LogFormatter

    course = np.where(np.isfinite(run.history), run.history, np.nan).clip(LEAST)
    lines = axes.plot(course, color="tab:blue", alpha=min(0.7, 0.1 + 10 / course.shape[1]), lw=1, marker=".", ms=4)
    never = np.isnan(course).all(0).sum()
    lines[0].set_label("a molecule" + (f" ({never} never whole)" if never else ""))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))  # plain numbers, and no crowd of them
    axes.locator_params("x", integer=True, min_n_ticks=1)
    axes.set(xlim=(-0.5, len(course) - 0.5), xlabel="round of the search (0: where it began)",
             ylabel="miss by the guide, all targets together / its resolution")


def _draw_values(axes: Axes, run: DesignRun, name: str) -> None:
    goal, place = run.targets[name], np.arange(1, len(run.molecules) + 1)
    fields = [molecule.properties for molecule in run.molecules]
    guide, judged = column(fields, f"guide_{name}"), column(fields, f"evaluator_{name}")
    valid = np.array([molecule.is_valid for molecule in run.molecules])
    told = np.concatenate([guide[valid], judged[valid], [goal.low, goal.high]])
    told = told[np.isfinite(told)]
    least, most = (told.min(), told.max()) if len(told) else (0.0, 0.0)
    reach = 0.5 * (most - least) + 1e-3
    if valid.any():  # what the networks say of a broken molecule may lie anywhere
        guide, judged = (said.clip(least - reach, most + reach) for said in (guide, judged))
    if not goal.is_extreme:
        axes.axvspan(max(goal.low, least - reach), min(goal.high, most + reach), fc=(0.7, 0.13, 0.13, 0.08),
                     ec="firebrick", lw=1.5, zorder=0, label="target")
    axes.scatter(guide, place, marker="|", s=30, color="dimgrey", lw=1.2, label="guide")
    axes.scatter(judged[valid], place[valid], s=16, color="tab:blue", label="evaluator")
    if not valid.all():
        axes.scatter(judged[~valid], place[~valid], s=22, marker="x", color="darkorange", lw=1.2,
                     label="not valid (far ones at the edge)")
    axes.locator_params("y", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
    axes.set(xlabel=f"{name} / {unit(name)}", ylabel="molecule", ylim=(len(place) + 0.7, 0.3))
