"""OT-ODE: the flow's velocity with a correction towards the measurement (Pokle et al. 2023, TMLR, arXiv 2310.04432).

Algorithm 1: from x_t = t y⁺ + (1 - t) noise at a time t > 0, y⁺ the pseudo-inverse, Euler's method on
u + (1 - t) / t γ g with g = (dx̂/dx)' A' (r² A A' + noise²)⁻¹ (y - A x̂), r² = (1 - t)² / (t² + (1 - t)²), γ = 1. The
inverse by conjugate gradients, whatever the operator. 100 steps from 0 to 1; the time of the start is the paper's one
knob, 0.1 to 0.4 there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vjp

from benchmarks.inverse.problem import Problem, Solved
from molflow.inverse.operators import conjugate_gradients

GRID = ({"begin": 0.1}, {"begin": 0.2}, {"begin": 0.4})
EFFORTS = ({"steps": 20}, {"steps": 100})
SOLVES = 30
"""Steps of conjugate gradients for each inverse."""


def solve(problem: Problem, *, seed: int, begin: float, steps: int) -> Solved:
    """So many steps from 0 to 1, of which those before ``begin`` are left out."""
    adapter, noise = problem.adapter, max(problem.noise, 1e-3)
    start = adapter.encode(problem.guess())
    draw = adapter.space(len(problem)).noise(torch.Generator(adapter.device).manual_seed(seed))["x"]
    first = max(1, round(begin * steps))
    x = first / steps * start + (1 - first / steps) * draw
    for step in range(first, steps):
        t = step / steps
        at = x.detach().requires_grad_()
        velocity = adapter.field(at.new_full((len(at),), t), {"x": at}, None)[0]["x"]
        end = at + (1 - t) * velocity
        spread = (1 - t) ** 2 / (t**2 + (1 - t) ** 2)
        said, transposed = vjp(problem.measure, end.detach())

        def covariance(w: Tensor, a: float = spread, back: Callable = transposed) -> Tensor:
            return a * _linear(problem, back(w)[0]) + noise**2 * w

        weight = conjugate_gradients(covariance, problem.measured - said, SOLVES)
        (pull,) = torch.autograd.grad(end, at, transposed(weight)[0])
        x = x + (velocity.detach() + (1 - t) / t * pull) / steps
    with torch.no_grad():
        return Solved(adapter.decode(x), 3 * (steps - first))


def _linear(problem: Problem, end: Tensor) -> Tensor:
    """A of a linear operator, without what a decoder may add."""
    return problem.measure(end) - problem.measure(torch.zeros_like(end))
