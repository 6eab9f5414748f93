"""What the reports on pictures and on sound have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.charts import Series, panels
from benchmarks.inverse.problem import Method
from benchmarks.tables import Picture


def against_seconds(results: dict[str, Any], methods: Mapping[str, Method], figure: str, signal: str) -> Picture:
    """A figure in dB, such as psnr, against the time that it took, a panel for each task; ``signal`` is what one is."""
    drawn = {task: [Series(methods[name].label, sorted((row["cpu_seconds"], row[figure]) for row in measured))
                    for name, measured in found.items()] for task, found in results["tasks"].items()}
    return Picture("seconds", f"{figure.upper()} against seconds",
                   panels(drawn, f"processor seconds a {signal}", f"mean {figure.upper()}, dB", linear=True, columns=4),
                   f"{results['n']} {signal}s a panel. Where a method has more points than one, it was given more "
                   "steps or evaluations.")


def without_shown(results: dict[str, Any]) -> dict[str, Any]:
    """The figures alone, of results whose pictures are drawn."""
    tasks = {task: {name: [{key: value for key, value in row.items() if key != "shown"} for row in measured]
                    for name, measured in methods.items()} for task, methods in results["tasks"].items()}
    return {**results, "tasks": tasks}


def spelt(knobs: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in knobs.items()) or "–"


def decibels(value: float | None) -> str:
    """Two digits behind the point."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}"
