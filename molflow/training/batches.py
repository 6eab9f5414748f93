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
        equal_pairs: whether ``batch_size`` is the mean only and the batches that are sorted together have about as many
            pairs of atoms each, so that one of large molecules needs no more memory and time than one of small ones.
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
        count = len(pool) // self.batch_size
        if not self.equal_pairs:
            return pool.split(self.batch_size)
        pairs = self.sizes[pool].double().square().cumsum(0)
        ends = torch.searchsorted(pairs, pairs[-1] * torch.arange(1, count) / count)
        # at least one in each, even where a single one has more pairs than its batch should
        number = torch.arange(1, count)
        ends = torch.cummax(ends - number, 0).values + number if count > 1 else ends
        return pool.tensor_split(torch.minimum(ends.clamp_min(1), len(pool) - count + number))
