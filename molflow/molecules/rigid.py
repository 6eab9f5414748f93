"""Laying rigid bodies onto atoms."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def laid(bodies: Tensor, shape: Tensor, there: Tensor) -> Tensor:
    """Rigid bodies laid by rotation and translation, each for itself, onto where their atoms are, as well as can be
    (Kabsch 1976, Acta Cryst. A 32, 922): (B, k, 3), without reflection.

    Args:
        bodies: (k,) number of the body that each atom belongs to.
        shape: (k, 3), the atoms in the frame of their body.
        there: (B, k, 3).
    """
    put = torch.empty_like(there)
    for body in bodies.unique():
        mine = bodies == body
        aim, own = there[:, mine], shape[mine].to(there)
        middle = aim.mean(1, keepdim=True)
        own = (own - own.mean(0)).expand_as(aim)
        u, _, v = torch.linalg.svd(own.transpose(1, 2) @ (aim - middle))
        hand = torch.ones(len(aim), 3, dtype=aim.dtype, device=aim.device)
        hand[:, 2] = torch.linalg.det(u @ v)
        put[:, mine] = own @ (u * hand[:, None]) @ v + middle
    return put


def deviation(bodies: Tensor, shape: Tensor, there: Tensor) -> Tensor:
    """(B,) Å, distance of the atom that lies farthest from its place in its body; arguments as in `laid`."""
    return (there - laid(bodies, shape, there)).norm(dim=-1).amax(1)
