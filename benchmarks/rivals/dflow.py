"""D-Flow: L-BFGS on the source point through the whole flow (Ben-Hamu et al. 2024, ICML, arXiv 2402.14017).

As published: from one draw, squared loss of the guide's reading of the soft endpoint, no draws to choose from, nothing
that holds the norm of the source, 5 outer times 5 inner iterations of L-BFGS with strong Wolfe line search, whose
memory goes on from one outer iteration to the next (25 iterations in a row, then), and the end decoded as it is, whole
or not. Adapted: the solver and its 10 steps instead of 50 of the midpoint rule; one L-BFGS for each molecule, run side
by side; it stops where the NFE are spent, most often before the 25 iterations. Its line search never accepts a rise,
so that the last iterate is the lowest.
"""

from __future__ import annotations

from torch import Tensor

from benchmarks.rivals.draws import affordable
from benchmarks.rivals.parts import WITH_GRADIENT, End, Part, in_parts, numbers
from molflow.flow.source import Shell, optimise_source
from molflow.models import Generator, Predictor
from molflow.search import Found, Problem, Progress
from molflow.search.problem import STEPS

COST = WITH_GRADIENT * STEPS
"""NFE of an evaluation of loss and gradient."""

ITERATIONS, EVALUATIONS = 25, 30
"""5 x 5, and the evaluations that torch.optim.LBFGS allows them, 5 x (5 x 1.25) rounded down."""


class Free(Shell):
    """No shell at all: sources are where L-BFGS puts them."""

    def retract(self, w: Tensor) -> Tensor:
        return w

    def select(self, index: Tensor) -> Free:
        return Free(self.space.select(index), {})


def solve(problem: Problem, generator: Generator, guide: Predictor, *, nfe: int, seed: int, chunk: int | None = None,
          progress: Progress | None = None) -> Found:
    """Raises ValueError where ``nfe`` allows no gradient."""
    evaluations = min(affordable(nfe, COST), EVALUATIONS)
    begin = numbers(seed, len(problem))[:, 0]
    return in_parts(problem, generator, guide, lambda part: descend(part, evaluations), begin, chunk=chunk,
                    progress=progress)


def descend(part: Part, evaluations: int) -> End:
    """At most so many evaluations of loss and gradient for each row, which do not know of each other."""
    found = optimise_source(part.flow(gradients=True), part.loss, part.space, part.start, max_evals=evaluations,
                            nfe_per_flow=STEPS, shell=Free(part.space, {}), history=ITERATIONS)
    return End(found.endpoint, found.source, found.nfe)
