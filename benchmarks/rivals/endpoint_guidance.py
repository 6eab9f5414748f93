"""Endpoint guidance: at each solver step the guide's reading of the estimated endpoint bends the velocity.

Diffusion posterior sampling (Chung et al. 2023, ICLR, arXiv 2209.14687, algorithm 1), with its normalised step: along
the gradient of the residual's length, not of its square. Adapted: the flow's estimate of x(1) in place of Tweedie's
formula; the push is added to the velocity, u - strength * grad |r(x̂(1))|, so that it goes with the solver's steps; the
NFE left over pay for more runs, of which the nearest whole one by the guide is kept, as in best of K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.rivals.draws import affordable, nearest, runs
from benchmarks.rivals.parts import WITH_GRADIENT, End, Part
from molflow.flow.solvers import integrate, time_grid
from molflow.flow.state import State, add
from molflow.models import Generator, Predictor
from molflow.nn.velocity import MoleculeField
from molflow.search import POWER, Found, Problem, Progress
from molflow.search.problem import STEPS

STRENGTH = 0.1
"""Tuned once, on gaps and sizes of 16 molecules of the training half (drawn with seed 1000), one run each: misses of
the decoded molecules by the guide, in units of the resolution, were 20.9 on average unguided (median 17.8, whole 94 %)
and 20.0, 13.2, 23.5 (medians 13.6, 5.9, 24.3; whole 94, 75, 12 %) with strengths of 0.03, 0.1, 0.3."""

COST = WITH_GRADIENT * STEPS
"""NFE of a run."""


def solve(problem: Problem, generator: Generator, guide: Predictor, *, nfe: int, seed: int, chunk: int | None = None,
          progress: Progress | None = None) -> Found:
    """``nfe // COST`` runs. Raises ValueError where that is none. Sources are those of the bent flow."""
    count = affordable(nfe, COST)
    pool = runs(problem, generator, guide, run, count, seed=seed, chunk=chunk, progress=progress)
    return nearest(pool, problem, count)


def run(part: Part) -> End:
    """One guided run for each row."""
    flow = MoleculeField(part.generator.network, part.space.mask)

    def bent(t: Tensor, x: State, memory: State | None) -> tuple[State, State]:
        point = part.space.pack(x).requires_grad_()
        with torch.enable_grad():
            velocity, endpoint = flow(t, part.space.unpack(point), memory)
            miss = part.residual(endpoint, part.index).norm(dim=1)
            (gradient,) = torch.autograd.grad(miss.sum(), point)
        push = part.space.unpack(gradient)
        return {k: v.detach() for k, v in add(velocity, push, -STRENGTH).items()}, _detached(endpoint)

    grid = time_grid(STEPS, power=POWER)
    with torch.no_grad():
        return End(integrate(bent, part.start, grid=grid, method="adams").state, part.start, COST)


def _detached(state: State) -> State:
    return {key: value.detach() for key, value in state.items()}
