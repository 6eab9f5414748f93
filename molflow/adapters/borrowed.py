"""What the models of other libraries have in common, whatever they make."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from molflow.adapters.adapter import Adapter, plain
from molflow.adapters.diffusion import NoiseTable, flow_field
from molflow.flow.solvers import VelocityField


def of(model: nn.Module, field: VelocityField, shape: tuple[int, ...], *, begin: float = 0.0) -> Adapter:
    """The flow of a model whose endpoints are the signals themselves; freezes its parameters."""
    model.requires_grad_(False)
    return Adapter(field, shape, begin=begin, device=next(model.parameters()).device)


def scheduled(model: Any, scheduler: Any) -> tuple[VelocityField, float]:
    """The velocity field of a model of diffusers, model(x, its time) -> prediction, and the time of its beginning.

    Raises ValueError where the scheduler says neither flow matching nor a variance-preserving diffusion.
    """
    if hasattr(scheduler, "alphas_cumprod"):
        table = NoiseTable(scheduler.alphas_cumprod)
        return flow_field(model, table, scheduler.config.prediction_type), table.begin
    if "FlowMatch" in type(scheduler).__name__:
        steps = scheduler.config.num_train_timesteps
        # diffusers' time runs from data to noise, and its velocity points that way
        return plain(lambda t, x: -model(x, steps * (1 - t))), 0.0
    raise ValueError(f"{type(scheduler).__name__} is neither a flow-matching nor a variance-preserving scheduler")


def shift_of(scheduler: Any, tokens: int) -> float:
    """How far a scheduler of diffusers moves the steps towards the noise, for a transformer of that many tokens."""
    c = scheduler.config
    if not c.get("use_dynamic_shifting"):
        return c.get("shift") or 1.0
    slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
    return math.exp(c.base_shift + slope * (tokens - c.base_image_seq_len))


def guided(speak: Callable[..., Tensor], x: Tensor, time: Tensor, conditions: list[tuple[Tensor, ...]],
           guidance: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), unwanted + guidance (wanted - unwanted).

    Args:
        speak: the model, called as speak(x, time, *condition), once for both of them.
        x, time: (B, ...) and (B,).
        conditions: wanted and unwanted ones, each of a batch of 1.
        guidance: 1 for the wanted alone, in one evaluation instead of two.
    """
    used = conditions[:1] if guidance == 1 else conditions
    size, times = len(x), len(used)
    both = [torch.cat([c.expand(size, *c.shape[1:]) for c in kind]) for kind in zip(*used, strict=True)]
    like = both[0]
    said = speak(x.repeat(times, *[1] * (x.dim() - 1)).to(like.dtype), time.repeat(times), *both).to(x.dtype)
    if times == 1:
        return said
    wanted, unwanted = said.chunk(2)
    return unwanted + guidance * (wanted - unwanted)
