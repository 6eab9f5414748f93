"""Molecules a second of a search against how many are solved at once, its memory, and where its time goes."""

from __future__ import annotations

import cProfile
import pstats
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.memory import peak_mb
from benchmarks.qm9_targets import wanted
from benchmarks.tables import Table, number, percent
from molflow.models import Generator, Predictor
from molflow.nn.weights import SHIPPED
from molflow.search import Atlas, Budget, solve

CHUNKS = (1, 4, 16, 64, 256)
PROPERTY = "gap"

PHASES = {
    "looking up": ("atlas.py", "nearest"),
    "running candidates": ("pool.py", "run"),
    "sharing out": ("pool.py", "share"),
    "evolution": ("evolution.py", "evolve"),
    "Newton's method": ("newton.py", "find_root"),
    "SMILES, of twins": ("pool.py", "twins"),
}
"""Functions that follow each other, each with all that it calls."""

OPERATIONS = 8


def run(*, n: int = 256, seed: int = 0, device: str = "auto", weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` targets of the gap, solved so many at once, each time in a process of its own."""
    rows = []
    for chunk in CHUNKS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process remembers the most it ever held
            rows.append(pool.submit(_measure, chunk, n, seed, device, weights, False).result())
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        profile = pool.submit(_measure, 16, min(n, 64), seed, device, weights, True).result()
    return {"property": PROPERTY, "n": n, "chunks": rows, "profile": profile}


def _measure(chunk: int, n: int, seed: int, device: str, weights: Path, profile: bool) -> dict[str, Any]:
    generator = Generator.load(weights / "generator.safetensors", device)
    guide, atlas = Predictor.load(weights / "guide.safetensors", device), Atlas.beside(generator)
    problem = wanted(PROPERTY, n, seed, generator, guide)
    gpu = generator.device.type == "cuda"
    solve(problem[np.arange(2)], generator, guide, Budget(), atlas=atlas, seed=seed)  # what is made on the first call
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    before = 0.0 if gpu else peak_mb()
    profiler = cProfile.Profile() if profile else nullcontext()
    begun, spent = time.perf_counter(), time.process_time()
    with profiler:
        found = solve(problem, generator, guide, Budget(), atlas=atlas, chunk=chunk, seed=seed)
    wall, cpu = time.perf_counter() - begun, time.process_time() - spent
    after = torch.cuda.max_memory_allocated() / 1e6 if gpu else peak_mb()
    row = {"chunk": chunk, "seconds": wall, "cpu_seconds": cpu, "molecules_per_second": n / wall,
           "peak_mb": after - before, "nfe": found.nfe.double().mean().item()}
    if isinstance(profiler, cProfile.Profile):
        stats = pstats.Stats(profiler)
        row |= {"phases": _phases(stats), "operations": _operations(stats)}
    return row


def _phases(stats: pstats.Stats) -> dict[str, float]:
    """Of the whole time, what is spent in each of `PHASES`."""
    timings, total = _timings(stats)
    found = {label: sum(timing[3] for (path, _, function), timing in timings.items()
                        if path.endswith(file) and function == name) / total for label, (file, name) in PHASES.items()}
    return {**found, "the rest": 1 - sum(found.values())}


def _operations(stats: pstats.Stats) -> dict[str, float]:
    """Of the whole time, what the functions take that take most, without what they call."""
    timings, total = _timings(stats)
    most = sorted(timings.items(), key=lambda item: -item[1][2])[:OPERATIONS]
    return {f"{Path(path).name}: {function}" if path != "~" else function: timing[2] / total
            for (path, _, function), timing in most}


def _timings(stats: pstats.Stats) -> tuple[dict[tuple[str, int, str], tuple[Any, ...]], float]:
    return stats.stats, stats.total_tt  # type: ignore[attr-defined]


def tables(results: dict[str, Any]) -> list[Table]:
    speed = [[str(row["chunk"]), number(row["molecules_per_second"]), number(row["cpu_seconds"] / results["n"]),
              number(row["nfe"]), number(row["peak_mb"])] for row in results["chunks"]]
    profile = results["profile"]
    return [Table(f"{results['n']} targets of the {results['property']}, so many solved at once",
                  ["at once", "molecules a second", "processor s a molecule", "NFE", "peak MB"], speed,
                  "Memory beyond that of the loaded models. Whatever their number, candidates run eight times as many "
                  "at once, without gradients."),
            *(Table(title, ["", "%"], [[name, percent(share)] for name, share in profile[key].items()])
              for title, key in (("Where the time goes, 16 at once", "phases"),
                                 ("What takes most, without what it calls", "operations")))]
