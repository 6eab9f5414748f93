"""Batches on the device, prepared ahead by worker processes, and a record of how well that keeps the device busy."""

from __future__ import annotations

import time
from collections.abc import Iterator

from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from molflow.training.task import Batch, Task


class _Batches(Dataset):
    def __init__(self, task: Task) -> None:
        self.task = task

    def __getitem__(self, step: int) -> Batch:
        return self.task.batch(step)


class Feed:
    """The batches ``numbers`` of a task, in that order, on the device of a Fabric."""

    def __init__(self, task: Task, fabric: Fabric, numbers: range) -> None:
        workers = task.config.run.workers
        self.fabric = fabric
        self.loader = DataLoader(
            _Batches(task), batch_size=None, sampler=numbers, num_workers=workers,
            prefetch_factor=8 if workers else None,
            # forked, so that the workers share the data instead of each holding a copy
            multiprocessing_context="fork" if workers else None,
            # from pinned memory Fabric's copies to a GPU run beside its computing
            pin_memory=fabric.device.type == "cuda",
        )
        self._forget()

    def __iter__(self) -> Iterator[Batch]:
        self._forget()
        asked = time.monotonic()
        for batch in self.loader:
            self._waited += time.monotonic() - asked
            self._count(batch["mask"])
            yield self.fabric.to_device(batch)
            asked = time.monotonic()

    def figures(self) -> dict[str, float]:
        """Since the last call: molecules a second over all processes, the share of the time that was spent waiting
        for data, and the shares of padding among the atoms and among the pairs of atoms that were computed."""
        seconds = time.monotonic() - self._since
        said = {"molecules_per_second": self._molecules * self.fabric.world_size / seconds,
                "waiting": self._waited / seconds,
                "padding": 1 - self._atoms / self._places,
                "padding_pairs": 1 - self._pairs / self._squares}
        self._forget()
        return said

    def _count(self, mask: Tensor) -> None:
        sizes, (molecules, width) = mask.sum(1), mask.shape
        self._molecules += molecules
        self._atoms += int(sizes.sum())
        self._pairs += int(sizes.square().sum())
        self._places += molecules * width
        self._squares += molecules * width**2

    def _forget(self) -> None:
        self._since, self._waited = time.monotonic(), 0.0
        self._molecules = self._atoms = self._pairs = self._places = self._squares = 0
