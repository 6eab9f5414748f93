"""PnP-Flow: the flow's endpoint as a denoiser of pictures half made of noise (Martin et al. 2024, ICLR 2025,
arXiv 2410.02423).

Algorithm 3: for t from 0 to 1 in 100 steps, a step down the misfit's gradient with rate (1 - t)^alpha, fresh noise,
x̂ of it, averaged over 5 noises. alpha is the paper's one knob, of 0.01, 0.1, 0.3, 0.5, 0.8 and 1. Adapted: the rate is
in units of 1 / |A|², because averages of pixels have another norm than the paper's subsampling.
"""

from __future__ import annotations

import torch

from benchmarks.inverse.problem import Problem, Solved, misfit_gradient, steepness

GRID = ({"alpha": 0.01}, {"alpha": 0.3}, {"alpha": 1.0})
EFFORTS = ({"steps": 20}, {"steps": 100})
DRAWS = 5


@torch.no_grad()
def solve(problem: Problem, *, seed: int, alpha: float, steps: int) -> Solved:
    """So many steps of `DRAWS` evaluations each."""
    adapter, rng = problem.adapter, torch.Generator(problem.adapter.device).manual_seed(seed)
    space = adapter.space(len(problem))
    x = adapter.encode(problem.guess())
    rate = 1 / steepness(problem.measure, x)
    for step in range(steps):
        t = step / steps
        z = x - rate * (1 - t) ** alpha * misfit_gradient(problem.measure, problem.measured, x)
        x = torch.zeros_like(z)
        for _ in range(DRAWS):
            noisy = t * z + (1 - t) * space.noise(rng)["x"]
            velocity = adapter.field(z.new_full((len(z),), t), {"x": noisy}, None)[0]["x"]
            x += (noisy + (1 - t) * velocity) / DRAWS
    return Solved(adapter.decode(x), steps * DRAWS)
