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
    Raises:
        ValueError: fewer members than one batch holds.
    """

    def __init__(self, members: Tensor, sizes: Tensor, batch_size: int, seed: int) -> None:
        if len(members) < batch_size:
            raise ValueError(f"{len(members)} molecules do not fill one batch of {batch_size}")
        self.members, self.sizes, self.batch_size, self.seed = members, sizes, batch_size, seed
        self.per_epoch = len(members) // batch_size
        self._epoch = lru_cache(maxsize=2)(self._shuffle)

    def __getitem__(self, step: int) -> Tensor:
        """(batch_size,) rows of batch ``step``, counted from the start of training."""
        epoch, place = divmod(step, self.per_epoch)
        return self._epoch(epoch)[place]

    def _shuffle(self, epoch: int) -> Tensor:
        rng = np.random.default_rng([self.seed, epoch])
        order = torch.from_numpy(rng.permutation(len(self.members)))[: self.per_epoch * self.batch_size]
        pools = order.split(POOL * self.batch_size)
        ordered = torch.cat([pool[self.sizes[pool].argsort(stable=True)] for pool in pools])
        batches = self.members[ordered].view(self.per_epoch, self.batch_size)
        return batches[torch.from_numpy(rng.permutation(self.per_epoch))]
