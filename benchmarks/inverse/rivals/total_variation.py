"""Total variation, no prior learnt (Rudin, Osher & Fatemi 1992), by FISTA with scikit-image's proximal operator.

min |A(x) - y|² / 2 + weight TV(x), colours one by one; the weight is chosen for each task.
"""

from __future__ import annotations

import numpy as np
from skimage.restoration import denoise_tv_chambolle

from benchmarks.inverse.problem import Problem, Solved
from benchmarks.inverse.rivals.fista import descend

GRID = tuple({"weight": weight} for weight in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3))
STEPS = 60


def solve(problem: Problem, *, seed: int, weight: float) -> Solved:
    """Draws nothing."""
    def prox(x: np.ndarray, length: float) -> np.ndarray:
        planes = x.reshape(-1, *x.shape[2:])
        found = denoise_tv_chambolle(planes, weight=weight * length, eps=1e-4, max_num_iter=50, channel_axis=0)
        return found.reshape(x.shape)

    return Solved(descend(problem, prox, STEPS))
