"""Molecules for wanted property values: error by the evaluator, beside unguided and best of K at equal NFE."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import MISSING, load_qm9, qm9_path, smiles_of
from benchmarks.pool import processes
from benchmarks.published import FIELD_FACTOR, FIELD_UNITS, FLOOR, TARGETS
from benchmarks.record import Parts
from benchmarks.rivals import best_of_k, unguided
from benchmarks.tables import Table, number, percent
from molflow.commands.console import live
from molflow.data.store import qm9_split
from molflow.models import Generator, Predictor
from molflow.molecules import metrics
from molflow.molecules.convert import unbatch
from molflow.nn.property import PROPERTIES, UNITS
from molflow.nn.weights import SHIPPED
from molflow.search import Atlas, Budget, Found, Problem, solve
from molflow.search.problem import STEPS
from molflow.targets import TargetError

BUDGET = Budget()
MOST = 600
"""NFE a molecule that best of K may spend, as the field allows."""

FEW = 64
ROWS = {"unguided": "unguided", "best_of_k": f"best of {MOST // STEPS} draws", "molflow": "molflow"}


def run(*, parts: Parts, n: int = 64, seed: int = 0, device: str = "auto", weights: Path = SHIPPED,
        properties: Sequence[str] = PROPERTIES, budget: Budget = BUDGET) -> dict[str, Any]:
    """``n`` targets of each property; see `measure`. Properties measured by another process are taken along."""
    if unknown := [name for name in properties if name not in PROPERTIES]:
        raise TargetError(f"unknown property {unknown[0]!r}: known are {', '.join(PROPERTIES)}")
    generator = Generator.load(weights / "generator.safetensors", device)
    guide, evaluator = (Predictor.load(weights / f"{role}.safetensors", device) for role in ("guide", "evaluator"))
    known = _training_smiles(generator)
    for name in properties:
        parts(name, lambda name=name: measure(name, n, seed, budget, generator, guide, evaluator, known))
    networks = parts("networks", lambda: network_errors({"guide": guide, "evaluator": evaluator}))
    measured = {name: part for name in PROPERTIES if (part := parts.read(name))}
    return {"properties": measured, "networks": networks, "published": {"units": FIELD_UNITS, "mae": TARGETS}}


def wanted(name: str, n: int, seed: int, generator: Generator, guide: Predictor) -> Problem:
    """``n`` targets and sizes drawn from p(property, N) of the training molecules."""
    values, sizes = generator.prior.draw_targets(name, n, np.random.default_rng([seed, guide.properties.index(name)]))
    targets = torch.tensor(values, dtype=torch.float32)[:, None]
    return Problem((name,), targets, targets, sizes, known=guide.properties, resolution=guide.network.resolution)


def _training_smiles(generator: Generator) -> set[str] | None:
    """SMILES of the molecules that the generator learned from; None without QM9."""
    store = load_qm9()
    if store is None:
        return None
    with processes() as pool:
        return smiles_of(store, qm9_path(), qm9_split()[generator.card.training["part"]], pool)


def measure(name: str, n: int, seed: int, budget: Budget, generator: Generator, guide: Predictor,
            evaluator: Predictor, known: set[str] | None) -> dict[str, Any]:
    """All rows answer the targets of `wanted`; best of K, which costs many times more, only the first `FEW` of them.
    Novel is what is not among the SMILES ``known``.

    The unguided row is one draw a molecule, taken as it comes.
    """
    atlas, ways = Atlas.beside(generator), {}
    ways["molflow"] = partial(solve, budget=budget, atlas=atlas)
    ways["unguided"] = partial(unguided.solve, nfe=STEPS)
    ways["best_of_k"] = partial(best_of_k.solve, nfe=MOST)
    rows: dict[str, dict[str, Any]] = {}
    for key, way in ways.items():
        print(f"{name}: {key}", file=sys.stderr)
        problem = wanted(name, n, seed, generator, guide)
        if key == "best_of_k":
            problem = problem[np.arange(min(n, FEW))]
        begun = time.perf_counter()
        with live() as tell:
            found = way(problem, generator, guide, seed=seed, progress=tell)
        rows[key] = {**_graded(name, problem, found, evaluator, known),
                     "seconds_per_molecule": (time.perf_counter() - begun) / len(problem)}
    ours = rows["molflow"]["mae"]
    return {"unit": UNITS[name], "n": n, "rows": rows, "error_over_unguided": ours / rows["unguided"]["mae"],
            "error_over_best_of_k": ours / rows["best_of_k"]["mae"],
            "validity_lost": rows["unguided"]["valid"] - rows["molflow"]["valid"]}


def _graded(name: str, problem: Problem, found: Found, evaluator: Predictor, known: set[str] | None) -> dict[str, Any]:
    column, target = PROPERTIES.index(name), problem.low[:, 0]
    error = (evaluator.predict(found.batch)[:, column] - target).abs()
    molecules = unbatch(found.batch)
    valid = torch.tensor([molecule.is_valid for molecule in molecules])
    quality = metrics.evaluate(molecules, known)
    return {
        **_mean("mae", error),
        "mae_guide": (found.guide[:, column] - target).abs().mean().item(),
        "mae_valid": error[valid].mean().item() if valid.any() else None,
        "without_reading": int((~error.isfinite()).sum()),  # diverged; such a row has no mean
        "n": len(problem),
        "valid": quality[metrics.VALID],
        "unique": quality[metrics.UNIQUE],
        "molecule_stability": quality[metrics.MOLECULE_STABILITY_BONDS],
        "novel": quality.get(metrics.NOVEL),
        "diversity": quality[metrics.DIVERSITY],
        "nfe": found.nfe.double().mean().item(),
        "nfe_most": int(found.nfe.max()),
    }


def _mean(key: str, values: Tensor) -> dict[str, float]:
    """The mean and its standard error."""
    spread = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {key: values.mean().item(), f"{key}_standard_error": spread}


def network_errors(networks: dict[str, Predictor]) -> dict[str, Any]:
    """Mean absolute errors of the networks on QM9's test split, and over the field's evaluator's own."""
    store = load_qm9()
    if store is None:
        return {"missing": MISSING}
    members = torch.as_tensor(qm9_split()["test"])
    batch, truth = store.batch(members), store.columns(PROPERTIES)[members]
    result: dict[str, Any] = {"molecules": len(members)}
    for role, network in networks.items():
        print(f"{role} on the test split", file=sys.stderr)
        errors = dict(zip(PROPERTIES, (network.predict(batch) - truth).abs().double().mean(0).tolist(), strict=True))
        result[role] = {"mae": errors, "over_floor": {
            name: error * FIELD_FACTOR[name] / TARGETS[FLOOR][name] for name, error in errors.items()}}
    return result


def tables(results: dict[str, Any]) -> list[Table]:
    measured = results["properties"]

    def errors(row: str) -> list[str]:
        return [number(_times(measured[name]["rows"][row]["mae"], FIELD_FACTOR[name])) for name in measured]

    heads = [f"{name}, {FIELD_UNITS[name]}" for name in measured]
    ours = [[ROWS[row], *errors(row)] for row in ROWS]
    ours += [["molflow / unguided", *(number(measured[name]["error_over_unguided"]) for name in measured)],
             ["molflow / best of K", *(number(measured[name]["error_over_best_of_k"]) for name in measured)]]
    quoted = [[f"{row}, as quoted", *(number(values[name]) for name in measured)] for row, values in TARGETS.items()]
    details = [[f"{name}: {ROWS[key]}", f"{number(row['mae'])} ± {number(row['mae_standard_error'], 1)}",
                number(row["mae_guide"]), number(row["mae_valid"]), percent(row["valid"]), percent(row["unique"]),
                percent(row["molecule_stability"]), percent(row["novel"]), number(row["diversity"]),
                number(row["nfe"]), number(row["seconds_per_molecule"])]
               for name in measured for key, row in measured[name]["rows"].items()]
    found = [
        Table("Mean absolute error by the evaluator, every molecule counted", ["", *heads], ours + quoted),
        Table("In detail, energies in eV",
              ["", "MAE", "by the guide", "of the valid", "valid, %", "unique, %", "stable by bonds, %",
               "novel, %", "diversity", "NFE", "s a molecule"], details, "Novel: not among the generator's "
              "training molecules, of the distinct SMILES. Diversity: 1 less the mean Tanimoto similarity of two."),
    ]
    networks = results["networks"]
    if "missing" not in networks:
        rows = [[f"{role}: {what}", *(number(_times(networks[role][key][name], factor.get(name, 1.0)))
                                      for name in PROPERTIES)]
                for role in ("evaluator", "guide")
                for key, what, factor in (("mae", "MAE", FIELD_FACTOR), ("over_floor", "MAE / floor", {}))]
        found.append(Table(f"The networks on {networks['molecules']} test molecules of QM9",
                           ["", *(f"{name}, {FIELD_UNITS[name]}" for name in PROPERTIES)], rows,
                           "Floor: error of the field's evaluator on QM9, as quoted."))
    return found


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
