"""A small convolutional U-Net: the velocity field of pictures and of sound, of any size that its levels divide."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molflow.flow.state import per_sample
from molflow.nn.clock import fourier_time
from molflow.nn.sizes import WIDEST, check_sizes

GROUPS = 8

FINE = 3
"""Samples along each axis over whose mean a sample stands out."""

FAINTEST = 0.1
"""Of the noise in whose units that is told: more is not known of the data."""


@dataclass(frozen=True)
class UNetConfig:
    """Widths of the network.

    Attributes:
        dims: axes of a signal: 2 for pictures, 1 for sound.
        channels: of a signal: 1 grey or mono, 3 colours.
        patch: samples along each axis that the first convolution takes together. Noise has to pass the network as it is
            to be subtracted: of three colours in patches of 2 x 2 most of it does not.
        width: features at the first level; each further level has ``growth`` times as many, and half the samples.
        levels, blocks: levels, and residual blocks on either side of each.
        kernel: samples along each axis that a convolution sees.
        detail: whether the network also sees by how much each sample stands out from those around it, in units of the
            noise: near the data noise is faint, and it is all that is asked for.

    Raises:
        ValueError: one of them cannot be.
    """

    dims: int = 2
    channels: int = 1
    patch: int = 1
    width: int = 32
    growth: float = 2.0
    levels: int = 3
    blocks: int = 2
    kernel: int = 3
    detail: bool = False

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.dims > 2:
            raise ValueError(f"dims must be 1 or 2, not {self.dims}")
        if not all(16 <= width <= WIDEST for width in self.widths):
            raise ValueError(f"width and growth must give every level 16 to {WIDEST} features")

    @property
    def widths(self) -> list[int]:
        """Features at each level, multiples of 16."""
        return [round(self.width * self.growth**level / 16) * 16 for level in range(self.levels)]

    @property
    def divisor(self) -> int:
        """What the size of a signal along each axis must be a multiple of."""
        return self.patch * 2 ** (self.levels - 1)


class Block(nn.Module):
    """Two convolutions beside a shortcut; time scales and shifts what is between them (FiLM)."""

    def __init__(self, c: UNetConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        conv = _conv(c.dims)
        self.norm, self.first = nn.GroupNorm(GROUPS, inputs), conv(inputs, outputs, c.kernel, padding="same")
        self.inner_norm, self.second = nn.GroupNorm(GROUPS, outputs), conv(outputs, outputs, c.kernel, padding="same")
        self.film = nn.Linear(4 * c.width, 2 * outputs)
        self.shortcut = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        x = self.first(nn.functional.silu(self.norm(h)))
        scale, shift = self.film(time).view(*time.shape[:1], -1, *[1] * (h.dim() - 2)).chunk(2, 1)
        return self.shortcut(h) + self.second(nn.functional.silu(self.inner_norm(x) * (1 + scale) + shift))


class UNet(nn.Module):
    """u(t, x), fully convolutional: Ronneberger et al. 2015 with the residual blocks of Ho et al. 2020."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        c = self.config = config
        conv, widths = _conv(c.dims), c.widths
        self.clock = nn.Sequential(nn.Linear(16, 4 * c.width), nn.SiLU(), nn.Linear(4 * c.width, 4 * c.width),
                                   nn.SiLU())
        self.enter = conv(c.channels * (1 + c.detail), widths[0], c.patch, stride=c.patch)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        for level, width in enumerate(widths):
            self.down.append(nn.ModuleList(Block(c, width, width) for _ in range(c.blocks)))
            self.up.append(nn.ModuleList(Block(c, 2 * width, width) for _ in range(c.blocks)))
            if level + 1 < c.levels:
                self.shrink.append(conv(width, widths[level + 1], 2, stride=2))
                self.grow.append(_transposed(c.dims)(widths[level + 1], width, 2, stride=2))
        self.middle = Block(c, widths[-1], widths[-1])
        self.norm = nn.GroupNorm(GROUPS, widths[0])
        self.leave = _transposed(c.dims)(widths[0], c.channels, c.patch, stride=c.patch)
        nn.init.zeros_(self.leave.weight)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Velocity (B, C, *size) at times t (B,) and signals x of that shape.

        Raises ValueError where a size is no multiple of ``config.divisor``.
        """
        if any(size % self.config.divisor for size in x.shape[2:]):
            raise ValueError(f"sizes must be multiples of {self.config.divisor}, got {tuple(x.shape[2:])}")
        time = self.clock(fourier_time(t, 16))
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        h = self.enter(torch.cat([x, _detail(t, x)], 1) if self.config.detail else x)
        kept: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, time)
                kept.append(h)
        h = self.middle(h, time)
        for level in reversed(range(self.config.levels)):
            for block in self.up[level]:  # type: ignore[attr-defined]
                h = block(torch.cat([h, kept.pop()], 1), time)
            if level:
                h = self.grow[level - 1](h)
        return self.leave(nn.functional.silu(self.norm(h))).float()


def _detail(t: Tensor, x: Tensor) -> Tensor:
    """(B, C, *size), the high frequencies of signals x at times t, where noise is 1 - t, as loud at all times."""
    dims = x.dim() - 2
    around = nn.functional.pad(x, (FINE // 2,) * (2 * dims), mode="replicate")
    mean = (nn.functional.avg_pool1d if dims == 1 else nn.functional.avg_pool2d)(around, FINE, 1)
    return (x - mean) / per_sample(torch.hypot(1 - t, torch.full_like(t, FAINTEST)), x)


def _conv(dims: int) -> type[nn.Conv1d] | type[nn.Conv2d]:
    return nn.Conv1d if dims == 1 else nn.Conv2d


def _transposed(dims: int) -> type[nn.ConvTranspose1d] | type[nn.ConvTranspose2d]:
    return nn.ConvTranspose1d if dims == 1 else nn.ConvTranspose2d
