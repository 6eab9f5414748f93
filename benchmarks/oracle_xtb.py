"""GFN2-xTB against QM9's own numbers: the lines that bring it to their scale, and its word on designed molecules."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data import needed_qm9
from benchmarks.qm9_targets import BUDGET
from benchmarks.tables import Table, number
from benchmarks.targets_dft import design, rebuilt
from molflow.molecules.convert import unbatch
from molflow.nn.property import PROPERTIES, UNITS
from molflow.nn.weights import SHIPPED
from molflow.oracles import xtb
from molflow.parallel import Crash, spread
from molflow.verification import ON_QM9_SCALE, verify

DESIGNED = 20
"""Molecules a property, those of `qm9-targets-dft`."""


def run(*, n: int = 400, seed: int = 0, device: str = "auto", weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` molecules of QM9's test part, relaxed by GFN2-xTB: a line from its values to QM9's is laid through one half
    and judged by the other. Then the designed ones."""
    store = needed_qm9()
    members = torch.as_tensor(np.random.default_rng(seed).permutation(store.parts()["test"])[:n])
    molecules, wanted = unbatch(store.batch(members)), store.columns(PROPERTIES).double()[members].numpy()
    print(f"relaxing {n} molecules", file=sys.stderr)
    said = spread([partial(xtb.properties, molecule, relax=True, cv=True) for molecule in molecules])
    found = np.array([[np.nan if isinstance(one, Crash) else getattr(one, name) for name in PROPERTIES]
                      for one in said])
    sizes = np.array([len(molecule.numbers) for molecule in molecules], dtype=float)
    return {"version": xtb.version(), "n": n, "failed": int(np.isnan(found).any(1).sum()), "lines": {
        name: line(found[:, i], wanted[:, i], sizes) for i, name in enumerate(PROPERTIES)}, "designed": {
        name: judged(name, seed, weights, device) for name in ON_QM9_SCALE}}


def line(found: NDArray[np.float64], wanted: NDArray[np.float64], sizes: NDArray[np.float64]) -> dict[str, Any]:
    """Slope and intercept from one half; of the other half the errors by it, and by the number of atoms alone."""
    there = np.isfinite(found)
    half = np.arange(len(found)) % 2 == 0
    fit, rest = there & half, there & ~half
    slope, intercept = np.polyfit(found[fit], wanted[fit], 1)
    misses = np.abs(slope * found[rest] + intercept - wanted[rest])
    by_size = np.abs(np.polyval(np.polyfit(sizes[fit], wanted[fit], 1), sizes[rest]) - wanted[rest])
    return {"slope": float(slope), "intercept": float(intercept), "mean": float(misses.mean()),
            "of_19_in_20": float(np.quantile(misses, 0.95)), "by_size": float(by_size.mean())}


def judged(name: str, seed: int, weights: Path, device: str) -> dict[str, Any]:
    """Errors of molecules designed for values of a property, by the evaluator and by GFN2-xTB on QM9's scale."""
    claims = design(name, DESIGNED, seed, BUDGET, weights, device)["molecules"]
    verdicts = verify([rebuilt(each, {f"target_{name}": each["target"]}) for each in claims], relax=True)
    slope, intercept = ON_QM9_SCALE[name]
    off = [slope * getattr(verdict.values, name) + intercept - each["target"]
           for verdict, each in zip(verdicts, claims, strict=True)]
    return {"evaluator": float(np.mean([abs(each["evaluator"] - each["target"]) for each in claims])),
            "xtb": [None if np.isnan(miss) else float(miss) for miss in off],
            "words": [verdict.word for verdict in verdicts]}


def tables(results: dict[str, Any]) -> list[Table]:
    """The lines, and how far designed molecules are off by them."""
    shown = "slope", "intercept", "mean", "of_19_in_20", "by_size"
    rows = [[f"{name}, {UNITS[name]}", *(number(of[key]) for key in shown),
             *(map(number, ON_QM9_SCALE[name]) if name in ON_QM9_SCALE else ("–", "–"))]
            for name, of in results["lines"].items()]
    lines = Table(f"QM9's value = slope * GFN2-xTB's + intercept, {results['n']} molecules, {results['version']}",
                  ["", "slope", "intercept", "mean error", "19 of 20 within", "mean error by the number of atoms",
                   "slope in use", "intercept in use"], rows,
                  "At GFN2-xTB's minimum; one half gives the lines, the other the errors. "
                  f"Without a value: {results['failed']}.")
    rows = []
    for name, of in results["designed"].items():
        misses = np.abs([miss for miss in of["xtb"] if miss is not None])
        rows.append([f"{name}, {UNITS[name]}", str(len(of["words"])), str(len(misses)), number(of["evaluator"]),
                     number(float(misses.mean())), number(float(np.median(misses))),
                     str(sum(word == "agrees" for word in of["words"]))])
    designed = Table("Molecules designed for a value, against it",
                     ["", "designed", "with a value", "mean error by the evaluator", "by GFN2-xTB", "median", "agree"],
                     rows, "By the lines in use, relaxed by GFN2-xTB.")
    return [lines, designed]
