"""D-Flow as published: L-BFGS on the source, through the whole flow (Ben-Hamu et al. 2024, ICML, arXiv 2402.14017).

Midpoint rule with 6 evaluations of the velocity, a start that is the backward ODE of the measurement's pseudo-inverse
blended with noise (a = 0.1), the chi regulariser, L-BFGS with a strong Wolfe line search: `molflow.inverse.solve`.
Where this differs: one L-BFGS a sample instead of one for the batch; the regulariser's weight follows from the noise
instead of being tuned (0.01 in the settings of Martin et al.'s comparison, arXiv 2410.02423); and at most 60
evaluations of loss and gradient, where those settings allow 20 times 20 iterations: it is faster here than it was
published. The charts show what fewer bring.
"""

from __future__ import annotations

from benchmarks.inverse.problem import Problem, Solved
from molflow.inverse.solve import Recipe, restore

EFFORTS = ({"evals": 15}, {"evals": 60})


def solve(problem: Problem, *, seed: int, evals: int) -> Solved:
    """At most so many evaluations of loss and gradient for each sample."""
    found = restore(problem.adapter, problem.operator, problem.measured, noise=problem.noise, seed=seed,
                    recipe=Recipe(evals=evals))
    return Solved(found.signal, found.result.nfe.double().mean().item())
