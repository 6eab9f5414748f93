"""Memory of a process that designs molecules for hours."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.charts import Series, panels
from benchmarks.memory import resident_mb
from benchmarks.tables import Picture, Table, number
from molflow.designer import design

WARM = 3
"""Runs until everything that is made once has been made."""

TARGETS: list[dict[str, float | str]] = [{"gap": 5.0}, {"mu": "<1", "alpha": 60.0}, {"homo": -6.5, "lumo": "max"}]


def run(*, n: int = 8, seed: int = 0, device: str = "auto", minutes: float = 120.0,
        pictures: list[Picture]) -> dict[str, Any]:
    """Design ``n`` molecules again and again, for other targets and of another seed each time."""
    begun = time.monotonic()
    rows: list[dict[str, float]] = []
    while len(rows) < WARM + 2 or time.monotonic() - begun < 60 * minutes:
        design(TARGETS[len(rows) % len(TARGETS)], n, seed + len(rows), device=device)
        rows.append({"minutes": (time.monotonic() - begun) / 60, "mb": resident_mb()})
    warm = np.array([[row["minutes"] / 60, row["mb"]] for row in rows[WARM:]])
    slope, error = slope_of(*warm.T)
    pictures.append(Picture(
        "memory", "Resident memory after each run", panels(
            {"": [Series("resident", [(row["minutes"], row["mb"]) for row in rows])]}, "minutes", "MB", linear=True)))
    return {"n": n, "runs": len(rows), "warm": WARM, "mb_an_hour": slope, "mb_an_hour_error": error, "rows": rows}


def slope_of(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the straight line of least squares through points (N,), and its standard error."""
    slope, intercept = np.polyfit(x, y, 1)
    scatter = ((y - slope * x - intercept) ** 2).sum() / max(1, len(x) - 2)
    return float(slope), float(np.sqrt(scatter / ((x - x.mean()) ** 2).sum()))


def tables(results: dict[str, Any]) -> list[Table]:
    rows, warm = results["rows"], results["rows"][results["warm"]:]
    return [Table(f"{results['runs']} runs of {results['n']} molecules in one process", ["", "number"], [
        ["minutes", number(rows[-1]["minutes"])],
        ["MB after the first run", number(rows[0]["mb"], 4)],
        [f"MB after run {results['warm'] + 1}", number(warm[0]["mb"], 4)],
        ["MB after the last", number(warm[-1]["mb"], 4)],
        ["MB at most after any", number(max(row["mb"] for row in rows), 4)],
        ["slope, MB an hour", f"{results['mb_an_hour']:.1f} ± {results['mb_an_hour_error']:.1f}"],
    ], f"Resident memory, by least squares from run {results['warm'] + 1} on. Flat is what it has to be.")]
