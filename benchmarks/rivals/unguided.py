"""One draw for each problem, of its size, taken as it comes: what the generator does when nobody asks."""

from __future__ import annotations

from benchmarks.rivals import best_of_k
from molflow.models import Generator, Predictor
from molflow.search import Found, Problem, Progress
from molflow.search.problem import STEPS


def solve(problem: Problem, generator: Generator, guide: Predictor, *, nfe: int, seed: int, chunk: int | None = None,
          progress: Progress | None = None) -> Found:
    """Spends STEPS evaluations, whatever ``nfe`` allows. Raises ValueError where it allows fewer."""
    return best_of_k.solve(problem, generator, guide, nfe=min(nfe, STEPS), seed=seed, chunk=chunk, progress=progress)
