"""FlowChef: guidance that leaves out the gradient through the network (Patel et al. 2024, ICCV 2025, arXiv 2412.00100).

Algorithm 1: Euler's method from noise, and at each step x -= rate * gradient of the misfit at x̂ = x + (1 - t) u, taken
for the gradient at x. 100 steps; the rate, which the paper sets for each task, in units of 1 / |A|².
"""

from __future__ import annotations

import torch

from benchmarks.inverse.problem import Problem, Solved, misfit_gradient, steepness

GRID = ({"rate": 0.03}, {"rate": 0.1}, {"rate": 0.3}, {"rate": 1.0})
EFFORTS = ({"steps": 20}, {"steps": 100})


@torch.no_grad()
def solve(problem: Problem, *, seed: int, rate: float, steps: int) -> Solved:
    """So many steps of one evaluation each."""
    adapter = problem.adapter
    x = adapter.space(len(problem)).noise(torch.Generator(adapter.device).manual_seed(seed))["x"]
    length = rate / steepness(problem.measure, adapter.encode(problem.guess()))
    for step in range(steps):
        t = step / steps
        velocity = adapter.field(x.new_full((len(x),), t), {"x": x}, None)[0]["x"]
        gradient = misfit_gradient(problem.measure, problem.measured, x + (1 - t) * velocity)
        x = x + velocity / steps - length * gradient
    return Solved(adapter.decode(x), steps)
