"""Which molecules stand in which batch: a pure function of seed and step, so that any run can be resumed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

POOL = 40
"""Batches sorted by size together: enough that padding is a few per cent (of QM9's pairs of atoms 3 % in batches of 64,
5 % in batches of 1,024), few enough that which molecules meet stays random."""


class Buckets:
    """Batches of molecules of like size, in random order, epoch after epoch.

    Args:
        members: (n,) rows of the data set to train on.
        sizes: (n,) their atom counts.
        batch_size: molecules in a batch.
        equal_pairs: whether ``batch_size`` is the mean only and the batches that are sorted together have places for
            about as many pairs of atoms each, so that large molecules need no more memory and time than small ones.
    Raises:
        ValueError: fewer members than one batch holds.
    """

    def __init__(self, members: Tensor, sizes: Tensor, batch_size: int, seed: int, equal_pairs: bool = False) -> None:
        if len(members) < batch_size:
            raise ValueError(f"{len(members)} molecules do not fill one batch of {batch_size}")
        self.members, self.sizes, self.batch_size, self.seed = members, sizes, batch_size, seed
        self.equal_pairs = equal_pairs
        self.per_epoch = len(members) // batch_size
        self._epoch = lru_cache(maxsize=2)(self._shuffle)

    def __getitem__(self, step: int) -> Tensor:
        """(molecules,) rows of batch ``step``, counted from the start of training."""
        epoch, place = divmod(step, self.per_epoch)
        return self._epoch(epoch)[place]

    def _shuffle(self, epoch: int) -> list[Tensor]:
        rng = np.random.default_rng([self.seed, epoch])
        order = torch.from_numpy(rng.permutation(len(self.members)))[: self.per_epoch * self.batch_size]
        pools = order.split(POOL * self.batch_size)
        batches = [batch for pool in pools for batch in self._cut(pool[self.sizes[pool].argsort(stable=True)])]
        return [self.members[batches[place]] for place in rng.permutation(self.per_epoch)]

    def _cut(self, pool: Tensor) -> tuple[Tensor, ...]:
        """Batches of molecules that are sorted by size, as many whatever their sizes are."""
        if not self.equal_pairs:
            return pool.split(self.batch_size)
        count = len(pool) // self.batch_size
        squares = self.sizes[pool].square().flip(0).tolist()
        low, high = 0, len(squares) * squares[0]
        while high - low > 1:  # the fewest places for pairs that do
            middle = (low + high) // 2
            low, high = (low, middle) if len(_starts(squares, middle)) <= count else (middle, high)
        starts = _starts(squares, high)
        while len(starts) < count:
            longest = max(range(len(starts)), key=lambda i: [*starts, len(squares)][i + 1] - starts[i])
            end = [*starts, len(squares)][longest + 1]
            starts.insert(longest + 1, (starts[longest] + end) // 2)
        return pool.flip(0).tensor_split(starts[1:])


def _starts(squares: list[int], places: int) -> list[int]:
    """Where batches begin, largest molecules first, each as long as it has not too many places for pairs of atoms."""
    starts = [0]
    while (following := starts[-1] + max(1, places // squares[starts[-1]])) < len(squares):
        starts.append(following)
    return starts
