"""Molecules for wanted property values: error by the evaluator, beside unguided and best of K at equal NFE."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import MISSING, load_qm9
from benchmarks.published import FIELD_FACTOR, FIELD_UNITS, FLOOR, TARGETS
from benchmarks.record import Parts
from benchmarks.tables import Table, number, percent
from molflow.cli import live
from molflow.data.store import qm9_split
from molflow.designer import Budget, Problem, solve
from molflow.models import Generator, Predictor
from molflow.molecules import metrics
from molflow.molecules.convert import unbatch
from molflow.nn.property import PROPERTIES, UNITS
from molflow.nn.weights import SHIPPED
from molflow.targets import TargetError

BUDGET = Budget()
ROWS = {"unguided": "unguided", "best_of_k": "best of {draws} draws, equal NFE", "molflow": "molflow"}


def run(*, parts: Parts, n: int = 64, seed: int = 0, device: str = "auto", weights: Path = SHIPPED,
        properties: Sequence[str] = PROPERTIES, budget: Budget = BUDGET) -> dict[str, Any]:
    """``n`` targets of each property; see `measure`. Properties measured by another process are taken along."""
    if unknown := [name for name in properties if name not in PROPERTIES]:
        raise TargetError(f"unknown property {unknown[0]!r}: known are {', '.join(PROPERTIES)}")
    generator = Generator.load(weights / "generator.safetensors", device)
    guide, evaluator = (Predictor.load(weights / f"{role}.safetensors", device) for role in ("guide", "evaluator"))
    for name in properties:
        parts(name, lambda name=name: measure(name, n, seed, budget, generator, guide, evaluator))
    networks = parts("networks", lambda: network_errors({"guide": guide, "evaluator": evaluator}))
    measured = {name: part for name in PROPERTIES if (part := parts.read(name))}
    return {"properties": measured, "networks": networks, "published": {"units": FIELD_UNITS, "mae": TARGETS}}


def wanted(name: str, n: int, seed: int, generator: Generator) -> Problem:
    """``n`` targets and sizes drawn from p(property, N) of the training molecules."""
    values, sizes = generator.prior.draw_targets(name, n, np.random.default_rng([seed, PROPERTIES.index(name)]))
    return Problem((name,), torch.tensor(values, dtype=torch.float32)[:, None], sizes)


def measure(name: str, n: int, seed: int, budget: Budget, generator: Generator, guide: Predictor,
            evaluator: Predictor) -> dict[str, Any]:
    """All rows answer the same targets, those of `wanted`.

    The unguided row is one draw a molecule, taken as it comes; best of K spends in draws what molflow really spent.
    """
    problem = wanted(name, n, seed, generator)

    def row(label: str, spend: Budget) -> dict[str, Any]:
        print(f"{name}: {label}", file=sys.stderr)
        begun = time.perf_counter()
        with live() as tell:
            found = solve(problem, generator, guide, spend, seed=seed, progress=tell)
        seconds = time.perf_counter() - begun
        column = PROPERTIES.index(name)
        target = problem.values[:, 0]
        error = (evaluator.predict(found.batch)[:, column] - target).abs()
        molecules = unbatch(found.batch)
        valid = torch.tensor([molecule.is_valid for molecule in molecules])
        quality = metrics.evaluate(molecules)
        return {
            **_mean("mae", error),
            "mae_guide": (found.guide[:, column] - target).abs().mean().item(),
            "mae_valid": error[valid].mean().item() if valid.any() else None,
            "without_reading": int((~error.isfinite()).sum()),  # diverged; such a row has no mean
            "valid": quality[metrics.VALID],
            "unique": quality[metrics.UNIQUE],
            "nfe": found.nfe.double().mean().item(),
            "draws": spend.draws,
            "evals": spend.evals,
            "seconds_per_molecule": seconds / n,
        }

    ours = row("molflow", budget)
    draws = math.ceil(ours["nfe"] / budget.steps)
    rows = {"unguided": row("unguided", Budget(1, 0, budget.steps)),
            "best_of_k": row(f"best of {draws}", Budget(draws, 0, budget.steps)), "molflow": ours}
    return {"unit": UNITS[name], "n": n, "rows": rows,
            "error_over_unguided": ours["mae"] / rows["unguided"]["mae"],
            "error_over_best_of_k": ours["mae"] / rows["best_of_k"]["mae"],
            "validity_lost": rows["unguided"]["valid"] - ours["valid"]}


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
    ours = [[ROWS[row].format(draws="K"), *errors(row)] for row in ROWS]
    ours += [["molflow / unguided", *(number(measured[name]["error_over_unguided"]) for name in measured)],
             ["molflow / best of K", *(number(measured[name]["error_over_best_of_k"]) for name in measured)]]
    quoted = [[f"{row}, as quoted", *(number(values[name]) for name in measured)] for row, values in TARGETS.items()]
    details = [[f"{name}: {ROWS[key].format(**row)}", f"{number(row['mae'])} ± {number(row['mae_standard_error'], 1)}",
                number(row["mae_guide"]), number(row["mae_valid"]), percent(row["valid"]), percent(row["unique"]),
                number(row["nfe"]), number(row["seconds_per_molecule"])]
               for name in measured for key, row in measured[name]["rows"].items()]
    found = [
        Table("Mean absolute error by the evaluator, every molecule counted", ["", *heads], ours + quoted),
        Table("In detail, energies in eV",
              ["", "MAE", "by the guide", "of the valid", "valid, %", "unique, %", "NFE", "s a molecule"], details),
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
