"""Drug-like molecules for wanted property values: error by RDKit's or GFN2-xTB's own word, beside unguided ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import uncertainty
from benchmarks.pool import processes, spread
from benchmarks.qm9_targets import wanted
from benchmarks.record import Parts
from benchmarks.rivals import unguided
from benchmarks.tables import Table, number, percent
from molflow.commands.console import live
from molflow.models import Generator, Predictor
from molflow.molecules import metrics
from molflow.molecules.convert import Molecule, unbatch
from molflow.molecules.druglike import scores_of
from molflow.molecules.labels import DRUGLIKE, XTB
from molflow.nn.weights import SHIPPED
from molflow.oracles import xtb
from molflow.search import Atlas, Budget, Found, Problem, solve
from molflow.search.problem import STEPS
from molflow.targets import TargetError

WEIGHTS = "moses3d/evaluator", "moses3d/generator", "moses3d/guide"
BUDGET = Budget()


def run(*, parts: Parts, n: int = 64, seed: int = 0, device: str = "auto", weights: Path = SHIPPED / "moses3d",
        properties: Sequence[str] | None = None, budget: Budget = BUDGET) -> dict[str, Any]:
    """``n`` targets of each property that the guide reads; see `measure`."""
    generator = Generator.load(weights / "generator.safetensors", device)
    guide, evaluator = (Predictor.load(weights / f"{role}.safetensors", device) for role in ("guide", "evaluator"))
    known = [name for name in guide.properties if name in generator.prior.ranges and name in evaluator.properties]
    if unknown := [name for name in properties or () if name not in known]:
        raise TargetError(f"no target can be drawn for {unknown[0]!r}: known are {', '.join(known)}")
    with processes() as pool:
        for name in properties or known:
            parts(name, lambda name=name: measure(name, n, seed, budget, generator, guide, evaluator, pool))
    return {"properties": {name: part for name in known if (part := parts.read(name))}}


def measure(name: str, n: int, seed: int, budget: Budget, generator: Generator, guide: Predictor,
            evaluator: Predictor, pool: Executor) -> dict[str, Any]:
    """Both rows answer the targets of `qm9_targets.wanted`; unguided is one draw a molecule, taken as it comes."""
    ways: dict[str, Callable[..., Found]] = {
        "unguided": partial(unguided.solve, nfe=STEPS),
        "molflow": partial(solve, budget=budget, atlas=Atlas.beside(generator)),
    }
    rows: dict[str, dict[str, Any]] = {}
    for key, way in ways.items():
        print(f"{name}: {key}", file=sys.stderr)
        problem = wanted(name, n, seed, generator, guide)
        begun = time.perf_counter()
        with live() as tell:
            found = way(problem, generator, guide, seed=seed, progress=tell)
        seconds = (time.perf_counter() - begun) / n
        rows[key] = {**graded(name, problem, found, guide, evaluator, pool), "seconds_per_molecule": seconds}
    ours, free = rows["molflow"], rows["unguided"]
    both = ours["calculated_of"] and free["calculated_of"]  # else nothing was valid
    return {"unit": guide.units[name], "n": n, "rows": rows, "error_over_unguided": ours["mae"] / free["mae"],
            "calculated_over_unguided": ours["calculated"] / free["calculated"] if both else None}


def graded(name: str, problem: Problem, found: Found, guide: Predictor, evaluator: Predictor,
           pool: Executor) -> dict[str, Any]:
    """The evaluator's word on every molecule; on the valid ones that of the program that the networks learnt from."""
    target = problem.low[:, 0]
    error = (evaluator.predict(found.batch)[:, evaluator.properties.index(name)] - target).abs()
    molecules = unbatch(found.batch)
    valid = [place for place, molecule in enumerate(molecules) if molecule.is_valid]
    said = spread(pool, partial(calculated, name), [molecules[place] for place in valid], name)
    misses = [abs(value - float(target[place])) for place, value in zip(valid, said, strict=True) if value is not None]
    quality = metrics.evaluate(molecules)
    return {
        "mae": error.mean().item(), "mae_standard_error": uncertainty.mean(error.tolist()),
        "mae_guide": (found.guide[:, guide.properties.index(name)] - target).abs().mean().item(),
        "calculated": float(np.mean(misses)) if misses else None,
        "calculated_standard_error": uncertainty.mean(misses), "calculated_of": len(misses),
        "valid": quality[metrics.VALID], "unique": quality[metrics.UNIQUE], "diversity": quality[metrics.DIVERSITY],
        "nfe": found.nfe.double().mean().item(), "n": len(problem),
    }


def calculated(name: str, molecule: Molecule) -> float | None:
    """By RDKit from the structure formula, or by GFN2-xTB at the geometry as it was generated; None where that has no
    result."""
    if name in DRUGLIKE:
        return scores_of(molecule.smiles)[name]
    found = xtb.properties(molecule, alpha=name == "alpha", solvation=name == "solvation")
    return None if found.fault else getattr(found, name)


def tables(results: dict[str, Any]) -> list[Table]:
    measured = results["properties"]
    errors = [[key, *(number(part["rows"][key]["calculated"]) for part in measured.values())]
              for key in ("unguided", "molflow")]
    errors.append(["molflow / unguided", *(number(part["calculated_over_unguided"]) for part in measured.values())])
    details = [[f"{name}: {key}", f"{number(row['mae'])} ± {number(row['mae_standard_error'], 1)}",
                number(row["mae_guide"]),
                f"{number(row['calculated'])} ± {number(row['calculated_standard_error'], 1)}",
                f"{row['calculated_of']} of {row['n']}", percent(row["valid"]), percent(row["unique"]),
                number(row["diversity"]), number(row["nfe"]), number(row["seconds_per_molecule"])]
               for name, part in measured.items() for key, row in part["rows"].items()]
    heads = [f"{name}, {unit}" if (unit := part["unit"]) else name for name, part in measured.items()]
    return [
        Table("Mean absolute error of the valid molecules, calculated", ["", *heads], errors,
              f"{', '.join(DRUGLIKE)} by RDKit from the structure formula, which the networks never see; "
              f"{', '.join(XTB)} by GFN2-xTB at the geometry as generated."),
        Table("In detail", ["", "MAE by the evaluator, of all", "by the guide, of all", "calculated, of the valid",
                            "calculated", "valid, %", "unique, %", "diversity", "NFE", "s a molecule"], details,
              "Targets and sizes drawn from the training molecules. Diversity: 1 less the mean Tanimoto similarity of "
              "two."),
    ]
