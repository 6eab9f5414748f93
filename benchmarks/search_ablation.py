"""What each part of molflow's search is worth, at about equal NFE: one property, three at once, the tails."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from benchmarks.data import needed_qm9
from benchmarks.qm9_rivals import HIT, Setting, figures, problems, timed
from benchmarks.record import Parts
from benchmarks.tables import Table, number, percent
from molflow.data.store import DataError
from molflow.models import EXPECTED
from molflow.nn.weights import SHIPPED
from molflow.search import Atlas, Budget, solve

WITH_ATLAS, WITHOUT = {"lookups": 2}, {"draws": 16}
NEWTON = {"gradients": 2, "trials": 4}
EVOLUTION = {"generations": 4, "children": 4}
NO_EVOLUTION, NO_NEWTON = {"generations": 0}, {"gradients": 0}

BUDGETS: dict[str, dict[str, int]] = {
    "all of it": WITH_ATLAS | EVOLUTION | NEWTON,
    "the atlas alone": {"lookups": 1} | NO_EVOLUTION | NO_NEWTON,
    "atlas and evolution": WITH_ATLAS | NO_NEWTON | {"generations": 8, "children": 4},
    "atlas and Newton": WITH_ATLAS | NO_EVOLUTION | {"gradients": 4, "trials": 4},
    "regardless of doubt": WITH_ATLAS | EVOLUTION | NEWTON,
    "without atlas": WITHOUT | EVOLUTION | NEWTON,
    "draws and evolution": WITHOUT | NO_NEWTON | {"generations": 5, "children": 4},
    "draws and Newton": WITHOUT | NO_EVOLUTION | {"gradients": 3, "trials": 4},
    "draws alone": {"draws": 36} | NO_EVOLUTION | NO_NEWTON,
}


def run(*, parts: Parts, n: int = 48, seed: int = 0, device: str = "auto", weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` problems of each kind, as `qm9-rivals` has them. Raises DataError without QM9 or without an atlas."""
    store, setting = needed_qm9(), Setting.load(weights, device, seed)
    generator, guide = setting.generator, setting.guide
    atlas = Atlas.beside(generator)
    if atlas is None:
        raise DataError(f"no atlas beside {generator.path}: make one with 'molflow data atlas'")
    metrics = {key: value for key, value in guide.card.metrics.items() if key != EXPECTED}
    sure = dataclasses.replace(guide, card=dataclasses.replace(guide.card, metrics=metrics))
    found: dict[str, dict[str, Any]] = {}
    for kind, problem in problems(store, generator, n, seed).items():
        found[kind] = {}
        for place, (name, values) in enumerate(BUDGETS.items()):
            budget = Budget(**values)
            known = atlas if "lookups" in values else None
            leader = sure if name == "regardless of doubt" else guide

            def measure(problem=problem, budget=budget, known=known, leader=leader) -> dict[str, Any]:
                made, wall, cpu = timed(lambda: solve(problem, generator, leader, budget, atlas=known, seed=seed))
                most = budget.nfe(len(problem.names), known is not None)
                return {**figures(made, problem, setting, wall, cpu, most),
                        "missed": made.history[-1].median().item()}

            print(f"{kind}: {name}", file=sys.stderr)
            found[kind][name] = parts(f"{kind}.{place}", measure)
    return {"n": n, "problems": found}


def tables(results: dict[str, Any]) -> list[Table]:
    return [Table(f"{kind[0].upper()}{kind[1:]}, {results['n']} problems",
                  ["", "error", "median", "hits, %", "missed by the guide's reading", "valid, %", "NFE", "at most",
                   "processor s"],
                  [[name, f"{number(row['error'])} ± {number(row['error_standard_error'], 1)}",
                    number(row["error_median"]), percent(row["hits"]), number(row["missed"]), percent(row["valid"]),
                    number(row["nfe"]), number(row["budget"]), number(row["cpu_seconds"])]
                   for name, row in rows.items()],
                  "Error by the evaluator, of one property in its unit, of three the mean in floors; missed: median, "
                  f"in units of the resolution. A hit has every property within {HIT} floors.")
            for kind, rows in results["problems"].items()]
