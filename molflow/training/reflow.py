"""Straightening a trained flow: it learns again from its own pairs of source point and endpoint.

Rectified flow (Liu et al. 2023, arXiv 2209.03003, sec. 2.2). The pairs are those of `molflow.coupling`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from molflow.data.store import MoleculeStore
from molflow.molecules.state import MoleculeSpace
from molflow.training.batches import Buckets
from molflow.training.config import ConfigError
from molflow.training.generator import GeneratorTask
from molflow.training.task import Batch

HELD_OUT = 20
"""One in so many pairs is kept for validation."""


@dataclass
class ReflowTask(GeneratorTask):
    """The velocity network, and ``pairs``: molecules with the numbers of their source points as ``index``.

    ``store`` is the data that the flow first learned from; only its sizes and properties are looked at, for the card.

    Raises:
        ConfigError: ``pairs`` are molecules with properties, hence data and not what a flow has made.
    """

    pairs: MoleculeStore

    def __post_init__(self) -> None:
        if self.pairs.names:
            raise ConfigError("the pairs are molecules of a data set: give what `molflow data couple` wrote")
        super().__post_init__()
        run, number = self.config.run, torch.arange(len(self.pairs))
        apart = number % HELD_OUT == 0
        self.buckets, self.held_out = (
            Buckets(members, self.pairs.sizes[members], min(run.batch_size, len(members)), seed, run.batches == "pairs")
            for members, seed in ((number[~apart], run.seed), (number[apart], 0)))

    def _batch(self, members: Tensor, seed: list[int]) -> Batch:
        molecules = self.pairs.batch(members)
        generator = torch.Generator().manual_seed(hash(tuple(seed)) % 2**63)
        noise = MoleculeSpace(molecules.mask, self.vocabulary).numbered_noise(self.pairs.index[members])
        # uniform: with few steps to go, early errors count as much as late ones
        t = torch.rand(len(molecules), generator=generator)
        return self._ends_of(molecules, noise, t, generator)
