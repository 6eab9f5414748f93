"""Signals larger than the prior's: tiles that overlap, solved at once, and joined without seams."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from types import EllipsisType

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiling:
    """Where the tiles of a signal begin.

    Attributes:
        size: of the signal along its axes.
        tile: of each tile, no longer than the signal.
        starts: for each axis, where tiles begin.
    """

    size: tuple[int, ...]
    tile: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, size: tuple[int, ...], tile: tuple[int, ...], step: int = 1) -> Tiling:
        """Tiles that overlap by a quarter or more and reach every edge, beginning at multiples of ``step``."""
        return cls(size, tile, tuple(_starts(n, t, step) for n, t in zip(size, tile, strict=True)))

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Where each tile begins."""
        return list(product(*self.starts))

    def smaller(self, factor: int) -> Tiling:
        """The same tiles of the signal ``factor`` times shorter along each axis."""
        size, tile, *starts = (tuple(n // factor for n in axis) for axis in (self.size, self.tile, *self.starts))
        return Tiling(size, tile, tuple(starts))

    def cut(self, x: Tensor) -> Tensor:
        """(P, C, *size) -> (P * places, C, *tile), the tiles of one signal after those of another."""
        tiles = [x[self._where(place)] for place in self.places]
        return torch.stack(tiles, 1).flatten(0, 1)

    def join(self, tiles: Tensor) -> Tensor:
        """(P * places, C, *tile) -> (P, C, *size): means in which a tile counts less towards its edges."""
        pages = tiles.unflatten(0, (-1, len(self.places)))
        window = torch.ones((), dtype=tiles.dtype, device=tiles.device)
        for length in self.tile:
            # a triangle that nowhere is 0: where there is but one tile, at the signal's edges, it counts alone
            ramp = torch.arange(1, length + 1, dtype=tiles.dtype, device=tiles.device)
            window = window[..., None] * torch.minimum(ramp, ramp.flip(0))
        total = tiles.new_zeros(len(pages), tiles.shape[1], *self.size)
        weight = tiles.new_zeros(self.size)
        for number, place in enumerate(self.places):
            where = self._where(place)
            total[where] += window * pages[:, number]
            weight[where] += window
        return total / weight

    def inner(self, reach: int) -> Tensor:
        """(places, 1, *tile) bool: entries further than ``reach`` from those edges of a tile behind which the signal
        goes on: what is measured there depends on nothing outside of the tile."""
        masks = []
        for place in self.places:
            mask = torch.ones(self.tile, dtype=torch.bool)
            for axis, (start, end) in enumerate(zip(place, self._ends(place), strict=True)):
                along = torch.ones(self.tile[axis], dtype=torch.bool)
                if start:
                    along[:reach] = False
                if end < self.size[axis]:
                    along[self.tile[axis] - reach:] = False
                mask &= along.view(-1, *[1] * (len(self.tile) - axis - 1))
            masks.append(mask[None])
        return torch.stack(masks)

    def _where(self, place: tuple[int, ...]) -> tuple[EllipsisType | slice, ...]:
        return (..., *(slice(start, end) for start, end in zip(place, self._ends(place), strict=True)))

    def _ends(self, place: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(start + length for start, length in zip(place, self.tile, strict=True))


def _starts(size: int, tile: int, step: int) -> tuple[int, ...]:
    """As few as overlap by a quarter of a tile, as even as ``step`` allows."""
    room = size - tile
    count = -(-room // max(1, 3 * tile // 4)) + 1
    return tuple(sorted({round(room * i / max(1, count - 1) / step) * step for i in range(count)}))
