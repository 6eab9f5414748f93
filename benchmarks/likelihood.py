"""Log-likelihood of real, generated and distorted molecules under the flow of the QM9 generator."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import uncertainty
from benchmarks.data import MISSING, load_qm9
from benchmarks.tables import Table, number
from molflow.data.store import qm9_split
from molflow.designer import choose_sizes
from molflow.models import LIKELIHOOD_STEPS, LIKELIHOOD_TIME, Generator
from molflow.molecules.batch import MoleculeBatch
from molflow.nn.weights import SHIPPED

JITTER = 0.3
"""Å by which each coordinate of a distorted molecule is moved (standard deviation)."""

DRAWS = 2
"""Estimates of each molecule: as few as tell the error of one."""


def run(*, n: int = 64, seed: int = 0, device: str = "auto", weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` molecules of the test split, the same distorted, ``n`` generated of their sizes, ``n`` of training."""
    generator = Generator.load(weights / "generator.safetensors", device)
    store = load_qm9()
    part = generator.card.training.get("part", "half_b")
    groups: dict[str, MoleculeBatch] = {}
    if store is not None:
        split = {name: torch.as_tensor(rows) for name, rows in qm9_split().items()}
        for name, rows in (("test", split["test"]), ("training", split[part])):
            groups[name] = store.batch(rows[store.bonded[rows]][:n])
        test = groups["test"]
        moved = torch.randn(test.positions.shape, generator=torch.Generator().manual_seed(seed))
        groups["distorted"] = replace(test, positions=test.positions + JITTER * moved * test.mask[..., None])
    sizes = groups["test"].sizes.numpy() if groups else choose_sizes(generator, n, seed, None)
    groups["generated"] = generator.sample(sizes, seed=seed)

    seeds = np.random.SeedSequence(seed).generate_state(DRAWS).tolist()
    begun = time.perf_counter()
    drawn = {name: torch.stack([generator.log_likelihood(batch, steps=LIKELIHOOD_STEPS, seed=s) for s in seeds])
             for name, batch in groups.items()}
    seconds = time.perf_counter() - begun
    return {
        "groups": {name: _figures(drawn[name], _freedom(generator, batch)) for name, batch in groups.items()},
        "distorted_below_real": float((drawn["distorted"].mean(0) < drawn["test"].mean(0)).double().mean())
        if store is not None else None,
        "steps": LIKELIHOOD_STEPS,
        "time": LIKELIHOOD_TIME,
        "draws": DRAWS,
        "jitter": JITTER,
        "seconds_per_draw": seconds / (DRAWS * n * len(groups)),
        "training_part": part,
        "missing": None if store is not None else f"real molecules: {MISSING}",
    }


def _freedom(generator: Generator, batch: MoleculeBatch) -> Tensor:
    """(B,) degrees of freedom of the flow's state."""
    counts = generator.space(batch.sizes).groups().values()
    return torch.stack([freedom for _, freedom in counts]).sum(0).cpu()


def _figures(drawn: Tensor, freedom: Tensor) -> dict[str, Any]:
    """Of log p (draws, n): means with standard errors over the molecules, and the error of a single draw."""
    log_p = drawn.mean(0)
    bits = -log_p / math.log(2) / freedom
    return {
        "n": len(log_p),
        "log_p": log_p.mean().item(), "log_p_error": uncertainty.mean(log_p.tolist()),
        "bits": bits.mean().item(), "bits_error": uncertainty.mean(bits.tolist()),
        "median": log_p.median().item(),
        "draw_error": drawn.var(0).mean().sqrt().item(),
    }


def tables(results: dict[str, Any]) -> list[Table]:
    titles = {"test": "test split", "training": f"training ({results['training_part']})",
              "generated": "generated", "distorted": f"test split, moved by {results['jitter']} Å"}
    rows = []
    for name, title in titles.items():
        if figures := results["groups"].get(name):
            rows.append([title, f"{number(figures['log_p'])} ± {number(figures['log_p_error'], 2)}",
                         number(figures["median"]),
                         f"{number(figures['bits'])} ± {number(figures['bits_error'], 2)}",
                         number(figures["draw_error"], 2)])
    notes = [f"Lower bound of log p of a molecule given its number of atoms, positions in Å at a resolution of "
             f"{number((1 - results['time']) / results['time'], 2)} Å; {results['steps']} Runge-Kutta steps, mean of "
             f"{results['draws']} draws a molecule, {number(results['seconds_per_draw'], 2)} s a draw. ± is the "
             "standard error over molecules. Generated molecules have the sizes of the test ones where there are any."]
    if results["distorted_below_real"] is not None:
        notes.append(f"{100 * results['distorted_below_real']:.0f} % of the moved molecules are less likely than the "
                     "same one unmoved.")
    if results["missing"]:
        notes.append(f"Missing: {results['missing']}.")
    columns = ["molecules", "log p, nats", "median", "bits per degree of freedom", "error of a draw, nats"]
    n = results["groups"]["generated"]["n"]
    return [Table(f"log-likelihood of {n} molecules each", columns, rows, " ".join(notes))]
