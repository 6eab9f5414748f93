"""Optimal-transport pairing: turn and permute the noise onto the molecule, so that paths are straight.

Equivariant flow matching (Klein et al. 2023, arXiv 2306.15030; Song et al. 2023, arXiv 2312.07168).
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from molflow.flow.state import State


def kabsch(source: Tensor, target: Tensor) -> Tensor:
    """Rotations and reflections (B, 3, 3) R minimising |source Rᵀ - target|; both (B, N, 3), centred.

    Improper rotations are allowed: the noise has no handedness to keep.
    """
    u, _, vt = torch.linalg.svd(target.transpose(1, 2) @ source)
    return u @ vt


def pair(noise: State, data: State, sizes: Tensor, rounds: int = 2) -> State:
    """The same noise with atoms permuted and positions rotated towards ``data``, alternating exact assignment
    (Hungarian) and exact rotation (Kabsch). Types, charges and bonds stay independent of the data: they are
    drawn for a position, not for an atom.
    """
    x, target = noise["positions"].clone(), data["positions"]
    for step in range(rounds):
        cost = torch.cdist(target, x).square().numpy()
        for b, n in enumerate(sizes.tolist()):
            _, order = linear_sum_assignment(cost[b, :n, :n])
            x[b, :n] = x[b, torch.from_numpy(order)]
        if step < rounds - 1:
            x = x @ kabsch(x, target).transpose(1, 2)
    return {**noise, "positions": x}
