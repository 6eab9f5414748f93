"""Error against cost for molflow and the methods that it is compared with: one property, three at once, the tails."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.charts import Series, panels
from benchmarks.data import needed_qm9
from benchmarks.published import COLUMNS, FIELD_FACTOR, FLOOR, TARGETS
from benchmarks.record import Parts
from benchmarks.rivals import best_of_k, dflow, endpoint_guidance, flowgrad, unguided
from benchmarks.rivals.draws import nearest, runs
from benchmarks.tables import Picture, Table, number, percent
from molflow.commands.console import live
from molflow.data.store import MoleculeStore, qm9_split
from molflow.models import Generator, Predictor
from molflow.molecules import metrics
from molflow.molecules.convert import unbatch
from molflow.nn.property import UNITS
from molflow.nn.weights import SHIPPED
from molflow.search import Atlas, Budget, Found, Problem, solve

BUDGETS = (20, 150, 300, 600)
"""NFE a molecule, for methods that take what they are given."""

BUDGET = Budget()
"""Of molflow itself."""

QUANTILES = (0.001, 0.01, 0.99, 0.999)
EDGE = 2
"""Of the charts, in errors of what is not guided: some methods fall apart, and would flatten all the others."""

HIT = 3
"""Floors by which each property may miss in a hit."""

FLOORS = {name: TARGETS[FLOOR][name] / FIELD_FACTOR[name] for name in COLUMNS}
"""Errors of the field's evaluator, in molflow's units."""

LABELS = {"molflow": "molflow", "molflow_without_atlas": "molflow without atlas", "unguided": "unguided",
          "best_of_k": "best of K", "endpoint_guidance": "endpoint guidance", "dflow": "D-Flow", "flowgrad": "FlowGrad"}
POOLED = {"best_of_k": best_of_k, "endpoint_guidance": endpoint_guidance}
OTHERS = {"unguided": (unguided, BUDGETS[:1]), "dflow": (dflow, BUDGETS[1:]), "flowgrad": (flowgrad, BUDGETS[1:])}


@dataclass(frozen=True)
class Setting:
    """What all methods use."""

    generator: Generator
    guide: Predictor
    evaluator: Predictor
    seed: int

    @classmethod
    def load(cls, weights: Path, device: str, seed: int) -> Setting:
        """Of a folder of weights."""
        generator = Generator.load(weights / "generator.safetensors", device)
        guide, evaluator = (Predictor.load(weights / f"{role}.safetensors", device) for role in ("guide", "evaluator"))
        return cls(generator, guide, evaluator, seed)


def run(*, parts: Parts, pictures: list[Picture], n: int = 32, seed: int = 0, device: str = "auto",
        weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` problems of each kind. Raises DataError without QM9, of which the targets are taken."""
    store, setting = needed_qm9(), Setting.load(weights, device, seed)
    atlas = Atlas.beside(setting.generator)
    measured: dict[str, Any] = {}
    for kind, problem in problems(store, setting.generator, n, seed).items():
        rows: dict[str, list[dict[str, Any]]] = {}
        for method, measure in _methods(problem, setting, atlas).items():
            print(f"{kind}: {LABELS[method]}", file=sys.stderr)
            rows[method] = parts(f"{kind}.{method}", lambda measure=measure: {"rows": measure()})["rows"]
        measured[kind] = {"properties": list(problem.names), "unit": _unit(problem), "methods": rows}
    results = {"n": n, "problems": measured}
    pictures += charts(results)
    return results


def problems(store: MoleculeStore, generator: Generator, n: int, seed: int) -> dict[str, Problem]:
    """Properties and sizes of ``n`` real molecules of the training half, so that they belong together; and quantiles of
    the gap there by turns, with sizes that suit them."""
    rng = np.random.default_rng(seed)
    half = qm9_split()["half_b"]
    members = torch.from_numpy(rng.choice(half, n, replace=False))
    found = {}
    for kind, names in {"one property": ("gap",), "three at once": ("alpha", "gap", "mu")}.items():
        values = store.columns(names)[members]
        found[kind] = Problem(names, values, values, store.sizes[members].numpy())
    gaps = store.columns(("gap",))[torch.from_numpy(half), 0].double().numpy()
    values = np.quantile(gaps, QUANTILES)[np.arange(n) % len(QUANTILES)]
    sizes = np.array([generator.prior.draw_sizes(1, rng, {"gap": (value, value)})[0] for value in values])
    wanted = torch.tensor(values, dtype=torch.float32)[:, None]
    found["tails"] = Problem(("gap",), wanted, wanted, sizes, any_size=True)
    return found


def _methods(problem: Problem, setting: Setting, atlas: Atlas | None) -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """What measures each: a row for each budget."""
    generator, guide, seed = setting.generator, setting.guide, setting.seed

    def pooled(name: str) -> list[dict[str, Any]]:
        """One pool of runs, of which each budget takes the first, and its share of the time."""
        method = POOLED[name]
        count = BUDGETS[-1] // method.COST
        with live() as tell:
            pool, wall, cpu = timed(lambda: runs(problem, generator, guide, method.run, count, seed=seed, chunk=None,
                                                  progress=tell))
        return [figures(nearest(pool, problem, k), problem, setting, wall * k / count, cpu * k / count, budget)
                for budget in BUDGETS if (k := budget // method.COST)]

    def alone(name: str) -> list[dict[str, Any]]:
        method, budgets = OTHERS[name]
        rows = []
        for budget in budgets:
            with live() as tell:
                found, wall, cpu = timed(lambda budget=budget: method.solve(problem, generator, guide, nfe=budget,
                                                                             seed=seed, progress=tell))
            rows.append(figures(found, problem, setting, wall, cpu, budget))
        return rows

    def ours(atlas: Atlas | None) -> list[dict[str, Any]]:
        with live() as tell:
            found, wall, cpu = timed(lambda: solve(problem, generator, guide, BUDGET, atlas=atlas, seed=seed,
                                                    progress=tell))
        most = BUDGET.nfe(len(problem.names), atlas is not None)
        return [figures(found, problem, setting, wall, cpu, most)]

    found: dict[str, Callable[[], list[dict[str, Any]]]] = {"molflow": lambda: ours(atlas)} if atlas else {}
    found["molflow_without_atlas"] = lambda: ours(None)
    found["unguided"] = lambda: alone("unguided")
    for name in POOLED:
        found[name] = lambda name=name: pooled(name)
    for name in ("dflow", "flowgrad"):
        found[name] = lambda name=name: alone(name)
    return found


def timed(work: Callable[[], Found]) -> tuple[Found, float, float]:
    """What came out, seconds by the clock, seconds of the processor."""
    begun, spent = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - begun, time.process_time() - spent


def figures(found: Found, problem: Problem, setting: Setting, wall: float, cpu: float, budget: int) -> dict[str, Any]:
    """Errors by the evaluator of all decoded molecules, broken ones included, and what they cost."""
    n = len(problem)
    misses = (setting.evaluator.predict(found.batch)[:, problem.columns] - problem.low).abs()
    floors = misses / torch.tensor([FLOORS[name] for name in problem.names])
    error = misses[:, 0] if len(problem.names) == 1 else floors.mean(1)
    molecules = unbatch(found.batch)
    quality = metrics.evaluate(molecules)
    hit = (floors <= HIT).all(1)
    return {
        "budget": budget,
        "error": error.mean().item(),
        "error_standard_error": error.std().item() / math.sqrt(n) if n > 1 else None,
        "error_median": error.quantile(0.5).item(),
        "without_reading": int((~error.isfinite()).sum()),  # diverged; such a row has no mean
        "mae": dict(zip(problem.names, misses.mean(0).tolist(), strict=True)),
        "hits": hit.double().mean().item(),
        "valid_hits": sum(bool(h) and m.is_valid for h, m in zip(hit, molecules, strict=True)) / n,
        "valid": quality[metrics.VALID],
        "unique": quality[metrics.UNIQUE],
        "nfe": found.nfe.double().mean().item(),
        "seconds": wall / n,
        "cpu_seconds": cpu / n,
    }


def _unit(problem: Problem) -> str:
    return UNITS[problem.names[0]] if len(problem.names) == 1 else "floors"


def charts(results: dict[str, Any]) -> list[Picture]:
    """Error against NFE and against seconds, a panel for each kind of problem."""

    def picture(name: str, key: str, label: str, title: str, note: str) -> Picture:
        drawn = {}
        for kind, what in results["problems"].items():
            edge = EDGE * what["methods"]["unguided"][0]["error"]
            drawn[f"{kind}, {what['unit']}"] = [
                Series(LABELS[method], [(row[key], min(row["error"], edge)) for row in rows
                                        if row["error"] is not None])
                for method, rows in what["methods"].items()]
        return Picture(name, title, panels(drawn, label, "mean error by the evaluator"), note)

    note = f"{results['n']} problems a panel, every molecule counted; three at once: mean over them, in floors. "
    note += f"Errors of more than {EDGE} times the unguided one's stand at that."
    return [picture("nfe", "nfe", "NFE a molecule", "Error against NFE", note),
            picture("seconds", "cpu_seconds", "processor seconds a molecule", "Error against seconds",
                    note + " Seconds of the processor, which other programs on the machine do not lengthen.")]


def tables(results: dict[str, Any]) -> list[Table]:
    found = []
    for kind, what in results["problems"].items():
        rows = [[LABELS[method], number(row["nfe"]),
                 f"{number(row['error'])} ± {number(row['error_standard_error'], 1)}", number(row["error_median"]),
                 percent(row["hits"]), percent(row["valid_hits"]), percent(row["valid"]),
                 percent(row["unique"]), number(row["seconds"]), number(row["cpu_seconds"])]
                for method, measured in what["methods"].items() for row in measured]
        names = ", ".join(what["properties"])
        found.append(Table(
            f"{kind[0].upper()}{kind[1:]} ({names}), {results['n']} problems",
            ["", "NFE", f"error, {what['unit']}", "median", "hits, %", "valid hits, %", "valid, %", "unique, %",
             "s a molecule", "processor s"], rows,
            f"Error by the evaluator, every molecule counted; a hit has every property within {HIT} floors. Best of K "
            "and endpoint guidance: one pool of runs, of which each budget takes the first and its share of the time. "
            "The atlas is made once and for all problems: its NFE are not counted."))
    return found
