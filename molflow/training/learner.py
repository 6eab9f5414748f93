"""A network in training: its optimisers, its averaged weights, and what becomes of a batch's gradient.

Nothing here asks the GPU for a number: the processor runs ahead and always has the next kernels in the queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from molflow.training.config import Run
from molflow.training.muon import Muon
from molflow.training.task import Batch, Task


def schedule(done: float, run: Run) -> float:
    """Factor on the learning rate after a share ``done`` of the run: linear rise, flat, linear fall to zero."""
    rise = done / run.warmup if run.warmup else 1.0
    return min(1.0, rise, (1 - done) / run.cooldown if run.cooldown else 1.0)


def optimisers(network: nn.Module, run: Run) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024; orthogonalised momentum) for the hidden matrices, AdamW for everything else."""
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and is_hidden(name)]
    chosen = {id(p) for p in matrices}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=run.rate, weight_decay=run.weight_decay, betas=(0.9, 0.98), fused=True)
    if not matrices:
        return [adam]
    return [adam, Muon(matrices, lr=run.rate_matrix, weight_decay=run.weight_decay, adjust_lr_fn="match_rms_adamw")]


def is_hidden(name: str) -> bool:
    """Muon is for maps between hidden features, not for first and last layers."""
    return name.startswith("layers.")


def tame(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Clip the gradients to the norm ``most`` and return the norm they had; a bad batch counts as one without any.

    One bad batch (NaN, or a norm above 10,000) must not spoil the weights. To branch on it would be to wait for the
    GPU at every step, and NaN times zero is NaN, hence the ``where``.
    """
    with_gradient = [(p, p.grad) for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for _, gradient in with_gradient])
    norm = flat.norm()
    flat = torch.where(norm < 1e4, flat * (most / (norm + 1e-6)).clamp(max=1), 0)
    # copied, because fused AdamW on a CPU goes through memory as it lies: a gradient must lie as its parameter does,
    # and convolutions are trained with their channels last
    parts = flat.split([p.numel() for p, _ in with_gradient])
    torch._foreach_copy_([gradient for _, gradient in with_gradient],
                         [part.view_as(p) for (p, _), part in zip(with_gradient, parts, strict=True)])
    return norm


@torch.no_grad()
def follow(average: AveragedModel, network: nn.Module, step: int, decay: float) -> None:
    """Exponential average whose window grows with the run at first, so that the start is forgotten soon.

    ``AveragedModel.update_parameters`` would read its own counter off the GPU to say the same.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step)) if step else 1.0
    torch._foreach_lerp_(list(average.module.parameters()), list(network.parameters()), weight)
    average.n_averaged.add_(1)


class Learner:
    """The network of a task on the device of a Fabric, and all that one step of training does to it."""

    def __init__(self, task: Task, fabric: Fabric) -> None:
        self.task, self.fabric = task, fabric
        self.run: Run = task.config.run
        if fabric.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
        self.average = AveragedModel(task.network).to(fabric.device)
        if self.run.compile:
            # One graph for every width, because a batch is as wide as its largest molecule: a graph for each of
            # QM9's fifteen widths would take minutes to compile and pass the limit of eight after which nothing is
            # compiled any more. For the same reason no CUDA graphs, which are recorded for each shape.
            task.network.compile(dynamic=True)
        self.network, *self.optimisers = fabric.setup(task.network, *optimisers(task.network, self.run))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The task's loss and its parts, in the precision of the run."""
        # Fabric's own mixed precision would round positions and times to bfloat16 on their way into the network
        with torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=self.run.precision == "bf16"):
            return self.task.loss(self.network, batch)

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, summed over all processes."""
        self.fabric.backward(loss)

    def update(self, step: int, total: int) -> Tensor:
        """Step number ``step`` of ``total`` down the gradient; returns the gradient's norm before clipping."""
        norm = tame(self.task.network.parameters(), self.run.clip)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group.setdefault("peak", group["lr"]) * schedule((step + 1) / (total + 1), self.run)
            optimiser.step()
            optimiser.zero_grad()
        follow(self.average, self.task.network, step, self.run.ema)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs of this."""
        return {"network": self.task.network.state_dict(), "ema": self.average.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s result."""
        self.task.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["ema"])
        for optimiser, values in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(values)
