"""What `molflow restore` does: the posterior mean along the flow, with one recipe for all tasks."""

from __future__ import annotations

from benchmarks.inverse.problem import Problem, Solved
from molflow.inverse.posterior import Averaging, average

EFFORTS = ({"steps": 3}, {"steps": 2 * Averaging.steps}, {"steps": Averaging.steps})


def solve(problem: Problem, *, seed: int, steps: int) -> Solved:
    """So many steps."""
    found = average(problem.adapter, problem.operator, problem.measured, noise=problem.noise, seed=seed,
                    recipe=Averaging(steps=steps))
    return Solved(found.signal, found.nfe)
