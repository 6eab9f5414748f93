"""Single molecules as a reader finds them, and a `MoleculeStore` made of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from molflow.data.store import MoleculeStore
from molflow.molecules.convert import Molecule


class Unsound(ValueError):
    """Why a molecule is left out, in words that do not depend on it."""


@dataclass(frozen=True)
class Record:
    """One molecule as read.

    Attributes:
        positions: (n, 3) Å.
        numbers, charges: (n,) atomic numbers and formal charges.
        bonds: (b, 3) as (i, j, order), kekulised.
        flaw: why it has no bonds, if it has none.
    """

    positions: np.ndarray
    numbers: np.ndarray
    charges: np.ndarray
    bonds: np.ndarray
    flaw: str | None = None

    @classmethod
    def of(cls, molecule: Molecule) -> Record:
        first, second = np.triu(molecule.bonds, 1).nonzero()
        bonds = np.stack([first, second, molecule.bonds[first, second]], 1)
        return cls(molecule.positions, molecule.numbers, molecule.charges, bonds)


def pack(records: Sequence[Record], values: np.ndarray, index: np.ndarray, *, names: tuple[str, ...],
         units: tuple[str, ...], source: str, split: np.ndarray | None = None) -> MoleculeStore:
    """A store of these molecules.

    Args:
        values: (molecules, len(names)) properties.
        index: (molecules,) each one's number in the source.
        split: (molecules,) what `MoleculeStore.split` says.
    """
    def ptr(lengths: list[int]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def joined(parts: list[np.ndarray], empty: tuple[int, ...], kind: type) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([np.zeros(empty), *parts]).astype(kind))

    bonds = np.concatenate([np.zeros((0, 3), np.int64), *(r.bonds for r in records)])
    return MoleculeStore(
        positions=joined([r.positions for r in records], (0, 3), np.float32),
        numbers=joined([r.numbers for r in records], (0,), np.uint8),
        charges=joined([r.charges for r in records], (0,), np.int8),
        atom_ptr=ptr([len(r.numbers) for r in records]),
        bond_index=torch.from_numpy(bonds[:, :2].astype(np.uint8)),
        bond_order=torch.from_numpy(bonds[:, 2].astype(np.uint8)),
        bond_ptr=ptr([len(r.bonds) for r in records]),
        properties=torch.from_numpy(values.astype(np.float32).reshape(len(records), len(names))),
        index=torch.from_numpy(index.astype(np.int32)),
        bonded=torch.tensor([r.flaw is None for r in records], dtype=torch.bool),
        names=names, units=units, source=source,
        split=None if split is None else torch.from_numpy(split.astype(np.uint8)),
    )
