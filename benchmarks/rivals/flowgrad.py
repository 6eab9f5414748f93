"""FlowGrad, OC-Flow: control terms along the path, optimised through all of it.

Liu et al. 2023 (FlowGrad, CVPR) and Wang et al. 2024 (OC-Flow, arXiv 2410.18070): dx/dt = u(t, x) + c(t), with c
constant in each solver step, minimises |r(x(1))|^2 + penalty * integral of |c|^2 by gradient descent. Adapted: c acts
on positions, types, charges and bonds alike, as plain numbers (OC-Flow's SO(3) part has no counterpart here); Adam
takes the steps; gradients are exact, by back-propagation with checkpoints; the lowest of all evaluated ends is kept,
which is kinder than the last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.rivals.draws import affordable
from benchmarks.rivals.parts import End, Part, in_parts, numbers
from molflow.flow.solvers import integrate, time_grid
from molflow.flow.state import State, add, per_sample
from molflow.models import Generator, Predictor
from molflow.nn.velocity import MoleculeField
from molflow.search import POWER, Found, Problem, Progress
from molflow.search.problem import STEPS

COST = STEPS + 2 * (STEPS - 1)
"""NFE of an update: no gradient goes back through the first evaluation, whose point nothing controls."""

RATE = 0.1
"""Of Adam, tuned once, on gaps and sizes of 8 molecules of the training half (drawn with seed 1000) at 150 NFE: misses
by the guide, in units of the resolution, were 18.0, 13.4, 8.2, 12.0 on average (medians 22.4, 9.4, 3.1, 10.6; whole 88,
88, 88, 50 %) with 0.01, 0.03, 0.1, 0.3."""

PENALTY = 0.01
"""Of the mean square length of the control, beside a squared miss in units of the resolution: small."""


def solve(problem: Problem, generator: Generator, guide: Predictor, *, nfe: int, seed: int, chunk: int | None = None,
          progress: Progress | None = None) -> Found:
    """The last evaluation needs no gradient. Raises ValueError where ``nfe`` does not allow one evaluation. Sources are
    those of the controlled flow."""
    affordable(nfe, STEPS)
    updates = (nfe - STEPS) // COST
    begin = numbers(seed, len(problem))[:, 0]
    return in_parts(problem, generator, guide, lambda part: descend(part, updates), begin, chunk=chunk,
                    progress=progress)


def descend(part: Part, updates: int) -> End:
    """``updates`` steps of Adam for each row, which do not know of each other."""
    grid = time_grid(STEPS, power=POWER)
    lengths = grid.diff()
    flow = MoleculeField(part.generator.network, part.space.mask)
    like = part.space.pack(part.start)
    control = like.new_zeros(STEPS, *like.shape, requires_grad=True)

    def controlled(t: Tensor, x: State, memory: State | None) -> tuple[State, State]:
        velocity, endpoint = flow(t, x, memory)
        step = int((grid[1:] <= float(t[0]) + 1e-6).sum())
        return add(velocity, part.space.unpack(control[step]), 1.0), endpoint

    def evaluate() -> tuple[State, Tensor]:
        end = integrate(controlled, part.start, grid=grid, method="adams", checkpoint=True).state
        return end, part.loss(end, part.index)

    optimiser = torch.optim.Adam([control], lr=RATE)
    lowest = like.new_full((len(like),), torch.inf)
    best: State = {}
    for number in range(updates + 1):
        with torch.set_grad_enabled(number < updates):
            end, loss = evaluate()
        better = loss.detach() < lowest
        lowest = torch.where(better, loss.detach(), lowest)
        best = {key: torch.where(per_sample(better, x), x.detach(), best.get(key, x.detach()))
                for key, x in end.items()}
        if number < updates:
            weight = lengths.to(control)[:, None]
            total = loss + PENALTY * (weight * control.square().sum(2)).sum(0)
            (gradient,) = torch.autograd.grad(total.sum(), control)
            control.grad = gradient
            optimiser.step()
    return End(best, part.start, STEPS + COST * updates)
