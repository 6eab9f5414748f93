"""Interpolation between the samples that are known: linear, and a cubic spline (scipy, not-a-knot)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from benchmarks.inverse.problem import Problem, Solved
from molflow.inverse.operators import Blur, Clipped, Identity, Masked

LINEAR, SPLINE = ({"spline": False},), ({"spline": True},)


def incomplete(problem: Problem) -> bool:
    """Whether there is something to interpolate."""
    return not isinstance(problem.operator, Identity)


def solve(problem: Problem, *, seed: int, spline: bool) -> Solved:
    """For gaps, clipped samples (taken for gaps) and a lower sampling rate. Raises ValueError for another operator."""
    length = problem.adapter.shape[-1]
    known = places(problem)
    rows = []
    for row, mask in zip(problem.measured[:, 0].double().cpu().numpy(), known, strict=True):
        at = np.flatnonzero(mask)
        values = row[mask] if len(row) == length else row  # at a lower rate there is nothing but what is known
        everywhere = np.arange(length)
        rows.append(CubicSpline(at, values)(everywhere) if spline else np.interp(everywhere, at, values))
    return Solved(torch.from_numpy(np.stack(rows))[:, None].to(problem.measured))


def places(problem: Problem) -> np.ndarray:
    """(B, L) bool, samples that are known."""
    operator, length = problem.operator, problem.adapter.shape[-1]
    if isinstance(operator, Masked):
        known = operator.mask[:, 0]
    elif isinstance(operator, Clipped):
        known = (operator.lower.isinf() & operator.upper.isinf())[:, 0]
    elif isinstance(operator, Blur) and operator.stride > 1:
        known = torch.arange(length)[None] % operator.stride == 0
    else:
        raise ValueError(f"nothing to interpolate between: {type(operator).__name__}")
    return known.expand(len(problem), length).numpy()
