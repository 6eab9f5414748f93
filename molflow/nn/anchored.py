"""A velocity field under which some atoms come to lie as a given fragment does, wherever the molecule puts it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from molflow.flow.state import State
from molflow.molecules.rigid import deviation, laid
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
        bodies: (k,) int64, the rigid body that each belongs to; bodies are free against each other.
    """

    atoms: Tensor
    positions: Tensor
    bodies: Tensor

    def select(self, index: Tensor) -> Anchor:
        """Those of the rows ``index`` (b,)."""
        return Anchor(self.atoms[index], self.positions, self.bodies)

    def deviation(self, positions: Tensor) -> Tensor:
        """(B,) Å, distance of the atom that lies farthest from its place in the fragment."""
        return deviation(self.bodies, self.positions, positions.gather(1, self._rows(positions)))

    def put(self, positions: Tensor) -> Tensor:
        """Positions (B, N, 3) with the fragment in its place, laid there as well as can be."""
        rows = self._rows(positions)
        return positions.scatter(1, rows, laid(self.bodies, self.positions, positions.gather(1, rows)))

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
