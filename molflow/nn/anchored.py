"""A velocity field under which some atoms come to lie as a given fragment does, wherever the molecule puts it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from molflow.flow.state import State
from molflow.molecules.state import centre
from molflow.nn.velocity import MoleculeField, endpoint_to_velocity

FROM = 0.5
"""Time from which atoms are held: before it the molecule finds its shape, after it the rest has time to adapt."""


@dataclass(frozen=True)
class Anchor:
    """Atoms of B molecules and where they lie among each other.

    Attributes:
        atoms: (B, k) int64, numbers of the atoms in each molecule.
        positions: (k, 3) Å, of the fragment.
    """

    atoms: Tensor
    positions: Tensor

    def select(self, index: Tensor) -> Anchor:
        """Those of the rows ``index`` (b,)."""
        return Anchor(self.atoms[index], self.positions)

    @torch.no_grad()
    def laid(self, positions: Tensor) -> Tensor:
        """The fragment (B, k, 3) laid by rotation and translation onto the atoms of molecules (B, N, 3) as well as can
        be (Kabsch 1976, Acta Cryst. A 32, 922)."""
        there = self._of(positions)
        middle = there.mean(1, keepdim=True)
        own = (self.positions - self.positions.mean(0)).to(there).expand_as(there)
        u, _, v = torch.linalg.svd(own.transpose(1, 2) @ (there - middle))
        hand = torch.ones(len(there), 3, dtype=there.dtype, device=there.device)
        hand[:, 2] = torch.linalg.det(u @ v)
        return own @ (u * hand[:, None]) @ v + middle

    def deviation(self, positions: Tensor) -> Tensor:
        """(B,) Å, distance of the atom that lies farthest from its place in the fragment."""
        return (self._of(positions) - self.laid(positions)).norm(dim=-1).amax(1)

    def put(self, positions: Tensor) -> Tensor:
        """Positions (B, N, 3) with the fragment in its place."""
        return positions.scatter(1, self._rows(positions), self.laid(positions))

    def _of(self, positions: Tensor) -> Tensor:
        return positions.gather(1, self._rows(positions))

    def _rows(self, positions: Tensor) -> Tensor:
        return self.atoms.to(positions.device)[..., None].expand(-1, -1, 3)


@dataclass
class AnchoredField:
    """`MoleculeField` whose estimate of x(1) has the fragment in its place.

    Args:
        field: of B molecules.
        anchor: of the same.
    """

    field: MoleculeField
    anchor: Anchor

    def __call__(self, t: Tensor, x: State, memory: State | None) -> tuple[State, State]:
        velocity, endpoint = self.field(t, x, memory)
        if float(t.max()) < FROM:
            return velocity, endpoint
        held = self.settled(endpoint)
        return endpoint_to_velocity(held, x, t), held

    def settled(self, state: State) -> State:
        """The same with the fragment in its place; a solver of several steps comes only near it."""
        return {**state, "positions": centre(self.anchor.put(state["positions"]), self.field.mask)}
