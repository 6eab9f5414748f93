"""Charts of one figure against another, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

MARKERS = "osD^vP*X"

FEW = 1e3
"""From an axis' least to its most, with room for ticks at 2 and 5, too."""


@dataclass(frozen=True)
class Series:
    """Points (x, y) under one label, joined in their order."""

    label: str
    points: Sequence[tuple[float, float]]


def panels(series: Mapping[str, Sequence[Series]], xlabel: str, ylabel: str, *, linear: bool = False,
           columns: int = 0) -> bytes:
    """A log-log panel for each title, with ``linear`` only along x; a label has the same colour and marker in all.
    All side by side, or so many ``columns``."""
    labels = list(dict.fromkeys(one.label for group in series.values() for one in group))
    with style.context("default"):  # whatever the user has set
        across = min(columns or len(series), len(series))
        down = -(-len(series) // across)
        figure = Figure(figsize=(4.2 * across, 4.2 * down), layout="constrained")
        for place, (title, group) in enumerate(series.items(), start=1):
            axes = figure.add_subplot(down, across, place)
            for one in group:
                number = labels.index(one.label)
                axes.plot(*zip(*one.points, strict=True), marker=MARKERS[number % len(MARKERS)], color=f"C{number}",
                          label=one.label, lw=1.4, ms=6)
            axes.set(xscale="log", yscale="linear" if linear else "log", title=title, xlabel=xlabel)
            for axis in (axes.xaxis,) if linear else (axes.xaxis, axes.yaxis):
                least, most = axis.get_view_interval()
                axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if most < FEW * least else (1.0,)))
                axis.set_major_formatter(lambda value, _: f"{value:g}")
                axis.set_minor_formatter(NullFormatter())
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            if place % across == 1 % across:
                axes.set_ylabel(ylabel)
        handles, shown = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, shown, loc="outside lower center", ncols=len(labels), frameon=False)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=110)
    return png.getvalue()
