"""Molecules as points of the flow's state: positions and one-hot types, charges and bonds, all continuous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from molflow.flow.state import State
from molflow.molecules.batch import MoleculeBatch, pair_mask
from molflow.molecules.elements import Vocabulary


def centre(positions: Tensor, mask: Tensor) -> Tensor:
    """Positions (B, N, 3) with the mean of the real atoms at the origin and padding at zero."""
    weight = mask[..., None].to(positions)
    mean = (positions * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    return (positions - mean) * weight


def encode(batch: MoleculeBatch, vocabulary: Vocabulary) -> State:
    """The endpoint x(1) of a molecule: centred positions (B, N, 3) in Å, one-hot types (B, N, elements),
    charges (B, N, charges) and bonds (B, N, N, bonds); padding is zero.

    Raises:
        ValueError: a molecule has an element, charge or bond order that the vocabulary lacks.
    """
    mask = batch.mask
    classes = {"types": _classes(batch.numbers, vocabulary.elements, mask, "element"),
               "charges": _classes(batch.charges, vocabulary.charges, mask, "charge"),
               "bonds": _classes(batch.bonds, vocabulary.bonds, pair_mask(mask), "bond order")}
    return {"positions": centre(batch.positions, mask), **{k: v.to(batch.positions) for k, v in classes.items()}}


def decode(state: State, mask: Tensor, vocabulary: Vocabulary) -> MoleculeBatch:
    """Arg-max of every class, positions as they are."""
    def pick(scores: Tensor, values: tuple[int, ...], mask: Tensor) -> Tensor:
        chosen = torch.tensor(values, device=scores.device)[scores.argmax(-1)]
        return torch.where(mask, chosen, 0)

    return MoleculeBatch(
        positions=torch.where(mask[..., None], state["positions"], 0),
        numbers=pick(state["types"], vocabulary.elements, mask),
        charges=pick(state["charges"], vocabulary.charges, mask),
        bonds=pick(state["bonds"], vocabulary.bonds, pair_mask(mask)),
    )


def _classes(values: Tensor, allowed: tuple[int, ...], mask: Tensor, what: str) -> Tensor:
    match = values[..., None] == torch.tensor(allowed, device=values.device)
    unknown = mask & ~match.any(-1)
    if unknown.any():
        raise ValueError(f"{what} {int(values[unknown][0])} is not one of {allowed}")
    return one_hot(match.int().argmax(-1), len(allowed)) * mask[..., None]


@dataclass(frozen=True)
class MoleculeSpace:
    """Where source points live: centred positions, symmetric bonds, nothing on the padding.

    Implements ``molflow.flow.state.Space``. The packed vector holds each bond once (upper triangle), so that
    a standard Gaussian state has a standard Gaussian packed vector, of 3(n - 1) degrees of freedom in its
    position part.

    Args:
        mask: (B, N) bool.
    """

    mask: Tensor
    vocabulary: Vocabulary

    @property
    def batch(self) -> int:
        return len(self.mask)

    def noise(self, generator: torch.Generator | None = None) -> State:
        device = generator.device if generator else self.mask.device
        draw = torch.randn(self.batch, self._ends()[-1], generator=generator, device=device)
        return self.unpack(draw.to(self.mask.device))

    def numbered_noise(self, numbers: Tensor) -> State:
        """Source point number ``numbers[b]`` (B,) of its size for each row: a draw of its own, whatever else is in
        the batch. Drawn on the CPU."""
        points = []
        for number, size in zip(numbers.tolist(), self.mask.sum(1).tolist(), strict=True):
            alone = MoleculeSpace(torch.ones(1, size, dtype=torch.bool), self.vocabulary)
            points.append(alone.noise(torch.Generator().manual_seed(number)))
        return {key: value.to(self.mask.device) for key, value in self.together(points).items()}

    def pack(self, state: State) -> Tensor:
        i, j = self._triangle()
        real = self.mask[..., None]
        atoms = [torch.where(real, state[key], 0).flatten(1) for key in ("types", "charges")]
        pairs = torch.where(pair_mask(self.mask)[:, i, j, None], state["bonds"][:, i, j], 0)
        positions = centre(torch.where(real, state["positions"], 0), self.mask)
        return torch.cat([positions.flatten(1), *atoms, pairs.flatten(1)], 1)

    def unpack(self, flat: Tensor) -> State:
        b, n = self.mask.shape
        p, t, c, _ = self._ends()
        i, j = self._triangle()
        atoms = self.mask[..., None].to(flat)
        half = flat.new_zeros(b, n, n, len(self.vocabulary.bonds))
        half[:, i, j] = flat[:, c:].view(b, len(i), len(self.vocabulary.bonds))
        return {
            "positions": centre(flat[:, :p].view(b, n, 3), self.mask),
            "types": flat[:, p:t].view(b, n, -1) * atoms,
            "charges": flat[:, t:c].view(b, n, -1) * atoms,
            "bonds": (half + half.transpose(1, 2)) * pair_mask(self.mask)[..., None].to(flat),
        }

    def groups(self) -> dict[str, tuple[slice, Tensor]]:
        p, t, c, e = self._ends()
        n = self.mask.sum(1)
        return {
            "positions": (slice(0, p), 3 * (n - 1)),
            "types": (slice(p, t), len(self.vocabulary.elements) * n),
            "charges": (slice(t, c), len(self.vocabulary.charges) * n),
            "bonds": (slice(c, e), len(self.vocabulary.bonds) * (n * (n - 1) // 2)),
        }

    def select(self, index: Tensor) -> MoleculeSpace:
        return MoleculeSpace(self.mask[index], self.vocabulary)

    def alone(self, state: State) -> list[State]:
        """Each row of a state as a batch of one without padding, {key: (1, n, ...)}."""
        return [{key: (value[row, :size, :size] if key == "bonds" else value[row, :size])[None]
                 for key, value in state.items()} for row, size in enumerate(self.mask.sum(1).tolist())]

    def together(self, states: Sequence[State]) -> State:
        """The inverse of ``alone``: one state of all rows, zero on the padding."""
        width = self.mask.shape[1]

        def padded(key: str, value: Tensor) -> Tensor:
            extra = width - value.shape[1]
            return pad(value, (0, 0, 0, extra, 0, extra) if key == "bonds" else (0, 0, 0, extra))

        return {key: torch.cat([padded(key, state[key]) for state in states]) for key in states[0]}

    def _triangle(self) -> tuple[Tensor, Tensor]:
        n = self.mask.shape[1]
        i, j = torch.triu_indices(n, n, offset=1, device=self.mask.device)
        return i, j

    def _ends(self) -> tuple[int, int, int, int]:
        n, v = self.mask.shape[1], self.vocabulary
        p = 3 * n
        t = p + n * len(v.elements)
        c = t + n * len(v.charges)
        return p, t, c, c + n * (n - 1) // 2 * len(v.bonds)
