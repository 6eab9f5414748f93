"""What the oracles cost: GFN2-xTB's word on generated molecules, a DFT calculation of a large one of QM9's."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.data import needed_qm9
from benchmarks.tables import Table, number
from molflow.designer import sample
from molflow.molecules.convert import Molecule, unbatch
from molflow.nn.weights import SHIPPED
from molflow.oracles import dft
from molflow.parallel import Crash, spread
from molflow.verification import verify

MOLECULES = 16
"""Verified with GFN2-xTB, relaxation included; the bar is 15 s on two cores."""

HEAVY_ATOMS = 9
"""Of the molecules for DFT; the bar is 90 s for a single point on one core."""

OPTIONS = {"single point": {"alpha": False}, "with polarisability": {"alpha": True},
           "single point without density fitting": {"alpha": False, "density_fitting": False}}

T = TypeVar("T")


def run(*, n: int = 3, seed: int = 0, weights: Path = SHIPPED) -> dict[str, Any]:
    """Generated molecules whatever their state, and ``n`` of QM9's largest, drawn at random."""
    store = needed_qm9()
    generated = sample(MOLECULES, seed, device="cpu", generator=weights / "generator.safetensors")
    heavy = F.pad((store.numbers > 1).cumsum(0), (1, 0))[store.atom_ptr].diff()
    members = np.random.default_rng(seed).choice((heavy == HEAVY_ATOMS).nonzero()[:, 0], n, replace=False)
    large = unbatch(store.batch(torch.as_tensor(members)))
    return {"cores": len(os.sched_getaffinity(0)), "xtb": by_xtb(generated),
            "dft": {what: [by_dft(molecule, options) for molecule in large] for what, options in OPTIONS.items()}}


def by_xtb(molecules: list[Molecule]) -> dict[str, Any]:
    """`molflow.verify`, relaxation and the start of its processes, one a core, included."""
    verdicts, spent = timed(partial(verify, molecules, relax=True), resource.RUSAGE_CHILDREN)
    return {**spent, "atoms": float(np.mean([len(molecule.numbers) for molecule in molecules])),
            "words": dict(Counter(verdict.word for verdict in verdicts))}


def by_dft(molecule: Molecule, options: dict[str, bool]) -> dict[str, Any]:
    """In a process of one thread, whose start is not counted."""
    [made] = spread([partial(timed, partial(dft.properties, molecule, **options), resource.RUSAGE_SELF)], 1)
    if isinstance(made, Crash):
        return {"smiles": molecule.smiles, "fault": made.why}
    values, spent = made
    return {"smiles": molecule.smiles, "atoms": len(molecule.numbers), "fault": values.fault, **spent}


def timed(work: Callable[[], T], whose: int) -> tuple[T, dict[str, Any]]:
    """Seconds by the clock and on the processor, and how many processes wanted to run when it began and ended."""
    before, load, begun = resource.getrusage(whose), os.getloadavg()[0], time.perf_counter()
    made = work()
    seconds, after = time.perf_counter() - begun, resource.getrusage(whose)
    return made, {"seconds": seconds, "load": [load, os.getloadavg()[0]],
                  "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def tables(results: dict[str, Any]) -> list[Table]:
    xtb, cores = results["xtb"], results["cores"]
    rows = [[f"GFN2-xTB, relaxation included, {MOLECULES} molecules of {xtb['atoms']:.1f} atoms", *_spent(xtb)]]
    rows += [[f"DFT, {what}: {each['smiles']}" + (f", {each['fault']}" if each["fault"] else ""), *_spent(each)]
             for what, each_of in results["dft"].items() for each in each_of]
    return [Table(f"Time of the oracles, {cores} core{'s' * (cores != 1)} for GFN2-xTB, one for DFT",
                  ["", "s, clock", "s, processor", "load before and after"], rows,
                  "Load: processes that wanted to run, averaged over a minute. With more of them than cores the clock "
                  "says little, and the processor's seconds on all cores are what counts.")]


def _spent(row: dict[str, Any]) -> list[str]:
    if "seconds" not in row:
        return ["–"] * 3
    return [number(row["seconds"]), number(row["processor_seconds"]), " to ".join(f"{load:.1f}" for load in
                                                                                   row["load"])]
