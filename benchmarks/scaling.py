"""What a training step of the generator costs by the number of atoms: dense pairs, or a few rows of them at a time."""

from __future__ import annotations

import time
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import floors
from benchmarks.memory import peak_mb, resident_mb
from benchmarks.tables import Table, number, percent
from molflow.molecules.elements import VOCABULARIES
from molflow.molecules.state import MoleculeSpace
from molflow.nn.velocity import VelocityNetwork
from molflow.training.config import GeneratorConfig, load

SIZES = (10, 20, 30, 45, 60, 80, 100, 125, 150)
PAIRS = 24 * 40**2
"""Of atoms in a batch, whatever the molecules' size: as in training."""

ROWS = {"dense": None, "16 rows": 16, "4 rows": 4}


def run(*, n: int = 3, seed: int = 0, recipe: str = "moses3d") -> dict[str, Any]:
    """Forward and backward pass of a recipe's network, random weights, not compiled, on noise; best of ``n``. Each in a
    process of its own, whose memory is only that."""
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        measured = pool.starmap(measure, [(recipe, size, rows, seed, n) for size in SIZES for rows in ROWS.values()],
                                chunksize=1)
    cells = iter(measured)
    sizes = {size: {name: next(cells) for name in ROWS} for size in SIZES}
    return {"recipe": recipe, "sizes": sizes,
            "fits": {name: {key: fit(SIZES, [sizes[size][name][key] for size in SIZES])
                            for key in ("flops", "seconds", "megabytes")} for name in ROWS}}


def measure(recipe: str, size: int, rows: int | None, seed: int, repeats: int) -> dict[str, float]:
    """Of one molecule: FLOP of matrix products, processor seconds, MB; of a batch, molecules."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = load(GeneratorConfig, recipe)
    vocabulary = VOCABULARIES[config.data]
    network = VelocityNetwork(vocabulary, config.network)
    network.rows = rows
    parameters = list(network.parameters())

    def forward(space: MoleculeSpace) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.run.precision == "bf16"):
            said = network(torch.full((space.batch,), 0.5), space.noise(), space.mask)
        return sum(getattr(said, key).square().sum() for key in ("velocity", "types", "charges", "bonds"))

    def space(molecules: int, atoms: int) -> MoleculeSpace:
        return MoleculeSpace(torch.ones(molecules, atoms, dtype=torch.bool), vocabulary)

    def step(where: MoleculeSpace) -> None:
        forward(where).backward()
        for parameter in parameters:
            parameter.grad = None

    step(space(1, 4))  # what is loaded and allocated once
    before, molecules = resident_mb(), max(1, PAIRS // size**2)
    batch = space(molecules, size)
    spent = []
    for _ in range(repeats):
        begun = time.process_time()
        step(batch)
        spent.append(time.process_time() - begun)
    memory = peak_mb() - before
    with floors.FlopCounterMode(display=False) as flops:
        step(space(1, size))
    return {"molecules": molecules, "flops": float(flops.get_total_flops()), "seconds": min(spent) / molecules,
            "megabytes": memory / molecules}


def fit(sizes: tuple[int, ...], values: list[float]) -> dict[str, float]:
    """a n + b n², least squares of relative errors; ``even``: the size at which both are as large."""
    n, wanted = np.array(sizes, float), np.array(values)
    (a, b), *_ = np.linalg.lstsq(np.stack([n, n**2], 1) / wanted[:, None], np.ones(len(n)), rcond=None)
    return {"linear": float(a), "quadratic": float(b), "even": float(a / b)}


def tables(results: dict[str, Any]) -> list[Table]:
    columns = ["atoms", "molecules a batch", "MFLOP", *(f"{unit}, {name}" for unit in ("ms", "MB") for name in ROWS)]
    rows = []
    for size, ways in results["sizes"].items():
        dense = ways["dense"]
        rows.append([str(size), str(dense["molecules"]), number(dense["flops"] / 1e6),
                     *(number(1000 * way["seconds"]) for way in ways.values()),
                     *(number(way["megabytes"]) for way in ways.values())])
    fits = results["fits"]
    keys = "flops", "seconds", "megabytes"
    explained = [[name, *(number(found[key]["even"] if found[key]["linear"] > 0 else None) for key in keys),
                  *(percent(_pairs_share(found[key], 45)) for key in keys)] for name, found in fits.items()]
    return [
        Table(f"A molecule's forward and backward pass, `{results['recipe']}`", columns, rows,
              "Batches of as many pairs of atoms each. Random weights, not compiled, one thread; processor time, the "
              "best of several; the most memory that a process held beyond what it needs anyway. With rows, so many "
              "atoms' pairs only are worked on at once, and again for the gradient."),
        Table("a n + b n²: from how many atoms on the pairs cost more, and their share at 45 atoms",
              ["", "FLOP: atoms", "time: atoms", "memory: atoms", "FLOP, %", "time, %", "memory, %"], explained,
              "Fitted to the table above; –: none of it goes with the atoms alone. A list of neighbours would not save "
              "anything: every pair's bond is generated, and the flow begins with all atoms a few Å from each other. "
              "Rows save memory, for half again as much time at 45 atoms and more at 100."),
    ]


def _pairs_share(found: dict[str, float], size: int) -> float:
    return found["quadratic"] * size / (max(0.0, found["linear"]) + found["quadratic"] * size)
