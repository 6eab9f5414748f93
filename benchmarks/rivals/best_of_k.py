"""Best of K: K draws for each problem, of which the nearest whole one by the guide is kept.

Rejection sampling by another name, and the rival that papers on guidance leave out. Each problem has draws of its own;
`molflow.search` shares its draws among all problems of a run.
"""

from __future__ import annotations

import torch

from benchmarks.rivals.draws import affordable, nearest, runs
from benchmarks.rivals.parts import End, Part
from molflow.models import Generator, Predictor
from molflow.search import Found, Problem, Progress
from molflow.search.problem import STEPS

COST = STEPS
"""NFE of a draw."""


def solve(problem: Problem, generator: Generator, guide: Predictor, *, nfe: int, seed: int, chunk: int | None = None,
          progress: Progress | None = None) -> Found:
    """K = nfe // COST. Raises ValueError where that is none."""
    count = affordable(nfe, COST)
    pool = runs(problem, generator, guide, run, count, seed=seed, chunk=chunk, progress=progress)
    return nearest(pool, problem, count)


@torch.no_grad()
def run(part: Part) -> End:
    """One draw for each row."""
    return End(part.flow()(part.start, part.index), part.start, COST)
