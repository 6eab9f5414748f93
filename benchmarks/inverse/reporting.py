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


def standing(tasks: Mapping[str, Mapping[str, list[dict[str, Any]]]], figure: str) -> dict[str, Any]:
    """How molflow stands beside the other methods, each by the last of its rows.

    Of every other method the least by which molflow's figure, in dB, is ahead in a task, and the largest share of its
    processor time that molflow takes; of all, the most by which the best is ahead of molflow, and in how many tasks, of
    all, nobody is.
    """
    last = {task: {name: rows[-1] for name, rows in methods.items()} for task, methods in tasks.items()}
    others = {name for methods in last.values() for name in methods} - {"molflow"}
    beside = {name: [(methods["molflow"], methods[name]) for methods in last.values() if name in methods]
              for name in sorted(others)}
    behind = [max(row[figure] for row in methods.values()) - methods["molflow"][figure] for methods in last.values()]
    return {
        "least_ahead": {name: min(ours[figure] - theirs[figure] for ours, theirs in pairs)
                        for name, pairs in beside.items()},
        "most_time": {name: max(ours["cpu_seconds"] / theirs["cpu_seconds"] for ours, theirs in pairs)
                      for name, pairs in beside.items()},
        "most_behind": max(behind),
        "share_best": sum(gap <= 0 for gap in behind) / len(behind),
    }


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
