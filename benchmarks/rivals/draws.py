"""Several independent runs for each problem, of which the guide takes the best: a use for whatever NFE is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from benchmarks.rivals.parts import End, Part, in_parts, numbers
from molflow.models import Generator, Predictor
from molflow.search import Found, Problem, Progress


def affordable(nfe: int, cost: int) -> int:
    """Runs of ``cost`` NFE each. Raises ValueError where not even one can be paid for."""
    if nfe < cost:
        raise ValueError(f"a run takes {cost} NFE, {nfe} are too few")
    return nfe // cost


def runs(problem: Problem, generator: Generator, guide: Predictor, method: Callable[[Part], End], count: int, *,
         seed: int, chunk: int | None, progress: Progress | None) -> Found:
    """B * count results, those of the first problem first. Fewer runs are the first of more, so that one pool serves
    every smaller budget. Where any size will do, each run but a problem's first draws its own from p(N | properties).
    """
    rows = np.repeat(np.arange(len(problem)), count)
    many = problem[rows]
    if problem.any_size:
        many = replace(many, sizes=_sizes(problem, generator, count, seed).ravel())
    begin = numbers(seed, len(problem), count).ravel()
    return in_parts(many, generator, guide, method, begin, chunk=chunk, progress=progress)


def nearest(pool: Found, problem: Problem, count: int) -> Found:
    """For each problem the nearest whole one among the first ``count`` of its runs; the first, if none is whole."""
    width = len(pool.batch) // len(problem)
    miss = pool.history[-1].view(-1, width)[:, :count]
    chosen = torch.arange(len(problem)) * width + miss.argmin(1)
    nfe = pool.nfe.view(-1, width)[:, :count].sum(1)
    return Found(pool.batch[chosen], pool.guide[chosen], pool.errors[chosen], pool.fit[chosen], nfe,
                 miss.cummin(1).values.T, [pool.sources[place] for place in chosen.tolist()])


def _sizes(problem: Problem, generator: Generator, count: int, seed: int) -> np.ndarray:
    """(B, count) atom counts, the first of each row as the problem suggests."""
    sizes = np.empty((len(problem), count), dtype=np.int64)
    for row, (low, high) in enumerate(zip(problem.low.tolist(), problem.high.tolist(), strict=True)):
        ranges = dict(zip(problem.names, zip(low, high, strict=True), strict=True))
        sizes[row, 1:] = generator.prior.draw_sizes(count - 1, np.random.default_rng((seed, row)), ranges)
    sizes[:, 0] = problem.sizes
    return sizes
