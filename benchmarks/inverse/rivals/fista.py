"""FISTA: min |A(x) - y|² / 2 + penalty(x), for penalties with a proximal operator.

Beck & Teboulle 2009, SIAM J. Imaging Sci. 2, 183.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.inverse.problem import Problem, misfit_gradient, steepness

Prox = Callable[[np.ndarray, float], np.ndarray]
"""(x (B, C, *size), length) -> argmin over z of |z - x|² / 2 + length * penalty(z)."""


@torch.no_grad()
def descend(problem: Problem, prox: Prox, steps: int) -> Tensor:
    """(B, C, *size) after so many steps from the guess."""
    x = ahead = problem.guess()
    length = 1 / steepness(problem.operator, x)
    momentum = 1.0
    for _ in range(steps):
        down = ahead - length * misfit_gradient(problem.operator, problem.measured, ahead)
        new = torch.from_numpy(prox(down.double().cpu().numpy(), length)).to(x)
        after = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / after * (new - x)
        x, momentum = new, after
    return x
