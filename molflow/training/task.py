"""What the trainer trains: a network, where its batches come from, its loss and how it is judged."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

Batch = dict[str, Any]
"""Tensors of B molecules under their names, and plain numbers; always with ``mask`` (B, N) bool, the atoms."""


class Task(Protocol):
    """What is trained."""

    config: Any

    @property
    def network(self) -> nn.Module: ...

    def batch(self, step: int) -> Batch:
        """Batch number ``step``, on the CPU: a pure function, so that a resumed run sees what it would have seen."""
        ...

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss and its parts. Nothing in it may wait for the GPU: no ``item``, no indexing by a mask."""
        ...

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Figures of merit of the averaged weights."""
        ...
