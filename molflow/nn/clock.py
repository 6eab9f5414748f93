"""What a network is told of the time."""

from __future__ import annotations

import torch
from torch import Tensor


def fourier_time(t: Tensor, count: int) -> Tensor:
    """(B,) -> (B, count) sines and cosines of t at octaves from half a period."""
    phase = t[:, None] * torch.pi * 2.0 ** torch.arange(count // 2, device=t.device).to(t)
    return torch.cat([phase.sin(), phase.cos()], -1)
