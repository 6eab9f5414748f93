"""Sparse wavelet details, no prior learnt (Daubechies, Defrise & De Mol 2004), by FISTA with PyWavelets.

min |A(x) - y|² / 2 + weight |details of W x|_1 with orthogonal wavelets (sym4, periodic) and a random shift at each
step, which makes up for their lack of translation invariance (Figueiredo & Nowak 2003); the weight is chosen for each
task.
"""

from __future__ import annotations

import numpy as np
import pywt

from benchmarks.inverse.problem import Problem, Solved
from benchmarks.inverse.rivals.fista import descend

GRID = tuple({"weight": weight} for weight in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3))
GRID_OF_SOUND = tuple({"weight": weight} for weight in (0.0001, 0.0003, 0.001, 0.003, 0.01))
"""Speech is fainter than pictures, and so is its noise."""

STEPS = 100
WAVELET = "sym4"


def solve(problem: Problem, *, seed: int, weight: float) -> Solved:
    """Draws the shifts."""
    rng = np.random.default_rng(seed)

    def prox(x: np.ndarray, length: float) -> np.ndarray:
        axes = tuple(range(2, x.ndim))
        shift = tuple(int(rng.integers(size)) for size in x.shape[2:])
        moved = np.roll(x, shift, axes)
        coarse, *details = pywt.wavedecn(moved, WAVELET, "periodization", levels(x.shape[2:]), axes)
        kept = [{key: pywt.threshold(d, weight * length, "soft") for key, d in level.items()} for level in details]
        back = pywt.waverecn([coarse, *kept], WAVELET, "periodization", axes)
        return np.roll(back, tuple(-n for n in shift), axes)

    return Solved(descend(problem, prox, STEPS))


def levels(size: tuple[int, ...]) -> int:
    """As many as halve the size without rest, at most 4: periodic wavelets are orthogonal only there."""
    return min(4, *((n & -n).bit_length() - 1 for n in size))
