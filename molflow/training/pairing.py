"""Optimal-transport pairing: turn and permute the noise onto the molecule, so that paths are straight.

Equivariant flow matching (Klein et al. 2023, arXiv 2306.15030; Song et al. 2023, arXiv 2312.07168).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def kabsch(source: Tensor, target: Tensor) -> Tensor:
    """Rotations and reflections (B, 3, 3) R minimising |source Rᵀ - target|; both (B, N, 3), centred.

    Improper rotations are allowed: the noise has no handedness to keep.
    """
    u, _, vt = torch.linalg.svd(target.transpose(1, 2) @ source)
    return u @ vt


def pair(noise: Tensor, target: Tensor, sizes: Tensor, rounds: int = 2) -> Tensor:
    """The same noise (B, N, 3) with atoms permuted and positions rotated towards ``target`` (B, N, 3), alternating
    exact assignment (Hungarian) and exact rotation (Kabsch); molecule b has its atoms in the first ``sizes[b]`` rows.

    Only positions are paired: types, charges and bonds are drawn for a place, not for an atom, and stay independent
    of the data.
    """
    x, counts = noise, sizes.tolist()
    for step in range(rounds):
        # float64 because the solver works in it: anything else it would copy, one molecule at a time
        cost = torch.cdist(target.double(), x.double()).square().numpy()
        order = np.tile(np.arange(x.shape[1]), (len(x), 1))
        for b, n in enumerate(counts):
            order[b, :n] = linear_sum_assignment(cost[b, :n, :n])[1]
        x = x.gather(1, torch.from_numpy(order)[..., None].expand_as(x))
        if step < rounds - 1:
            x = x @ kabsch(x, target).transpose(1, 2)
    return x
