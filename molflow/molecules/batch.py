"""Decoded molecules as padded tensors: the one form that training, sampling and metrics share. Torch only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class MoleculeBatch:
    """B molecules padded to N atoms.

    A row with atomic number 0 is padding; its position, charge and bonds mean nothing and are not looked at.

    Args:
        positions: (B, N, 3) float, Å.
        numbers: (B, N) int64, atomic numbers, 0 for padding.
        charges: (B, N) int64, formal charges.
        bonds: (B, N, N) int64, symmetric, orders 0 to 3 of one Kekulé structure (aromatic bonds are 1 or 2).

    Raises:
        ValueError: a shape or dtype differs from the above.
    """

    positions: Tensor
    numbers: Tensor
    charges: Tensor
    bonds: Tensor

    def __post_init__(self) -> None:
        if self.numbers.ndim != 2:
            raise ValueError(f"numbers must be (B, N), got {tuple(self.numbers.shape)}")
        b, n = self.numbers.shape
        expected = {"positions": (b, n, 3), "charges": (b, n), "bonds": (b, n, n)}
        for name, shape in expected.items():
            if (got := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(f"{name} must be {shape} to go with numbers {(b, n)}, got {got}")
        if not self.positions.is_floating_point():
            raise ValueError(f"positions must be floating point, got {self.positions.dtype}")
        for name in ("numbers", "charges", "bonds"):
            if (dtype := getattr(self, name).dtype) != torch.int64:
                raise ValueError(f"{name} must be int64, got {dtype}")

    @property
    def mask(self) -> Tensor:
        """(B, N) bool, true where there is an atom."""
        return self.numbers > 0

    @property
    def sizes(self) -> Tensor:
        """(B,) int64, atoms in each molecule."""
        return self.mask.sum(dim=1)

    def __len__(self) -> int:
        return self.numbers.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> MoleculeBatch:
        """The chosen molecules, as a batch of the same width N; an int gives a batch of one."""
        if isinstance(index, int):
            # A list index, not a slice, so that negative and out-of-range numbers behave as in any sequence.
            index = [index]
        return MoleculeBatch(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device | str) -> MoleculeBatch:
        """The same batch on another device."""
        return MoleculeBatch(*(getattr(self, field.name).to(device) for field in fields(self)))

    @staticmethod
    def cat(batches: Sequence[MoleculeBatch]) -> MoleculeBatch:
        """All molecules in one batch, padded to the widest.

        Raises:
            ValueError: `batches` is empty.
        """
        if not batches:
            raise ValueError("cannot concatenate an empty list of batches")
        width = max(batch.numbers.shape[1] for batch in batches)
        padded = [batch._of_width(width) for batch in batches]
        names = [field.name for field in fields(MoleculeBatch)]
        return MoleculeBatch(*(torch.cat([getattr(batch, name) for batch in padded]) for name in names))

    def replaced(self, rows: Tensor, by: MoleculeBatch) -> MoleculeBatch:
        """The same batch with ``by``'s molecules in the given rows (b,)."""
        source = torch.arange(len(self))
        source[rows] = len(self) + torch.arange(len(rows))
        return MoleculeBatch.cat([self, by])[source] if len(rows) else self

    def trimmed(self) -> MoleculeBatch:
        """The same molecules as wide as the largest of them."""
        return self._of_width(int(self.sizes.max()))

    def _of_width(self, width: int) -> MoleculeBatch:
        extra = width - self.numbers.shape[1]
        return MoleculeBatch(
            positions=functional.pad(self.positions, (0, 0, 0, extra)),
            numbers=functional.pad(self.numbers, (0, extra)),
            charges=functional.pad(self.charges, (0, extra)),
            bonds=functional.pad(self.bonds, (0, extra, 0, extra)),
        )


def pair_mask(mask: Tensor) -> Tensor:
    """(B, N) bool atoms -> (B, N, N) bool, true for two different atoms of one molecule."""
    different = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    return mask[:, :, None] & mask[:, None, :] & different
