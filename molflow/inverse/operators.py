"""What was done to a signal before it was measured: y = A(x) + noise, sample by sample.

Signals are (B, C, *size), of one or two axes; those of measurements may be shorter. Nothing here knows a prior.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from molflow.flow.state import per_sample

REACHED = 0.999
"""Share of a limit at which a measurement has reached it."""


class Operator(Protocol):
    """A(x), differentiable."""

    @property
    def linear(self) -> bool:
        """Whether A is linear."""
        ...

    @property
    def uncut(self) -> Operator:
        """What A would be if nothing were cut off: linear, itself if it is."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """The measurements of signals x (B, C, *size), without noise."""
        ...

    def select(self, index: Tensor) -> Operator:
        """The operator of the samples `index` (b,); repeats are allowed."""
        ...

    def guess(self, y: Tensor, size: tuple[int, ...]) -> Tensor:
        """Signals (B, C, *size) from which measurements y may have come: the pseudo-inverse of a linear operator."""
        ...

    def expected(self, y: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        """Measurements y without what cut them off: where it did, the mean of what is beyond the limit, if everything
        was to be expected as Gaussian with these means and standard deviations (B, 1, ..., 1)."""
        ...


class Linear(ABC):
    """What linear operators share; each is the same for all samples unless it says otherwise."""

    linear = True

    @property
    def uncut(self) -> Operator:
        return self

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...

    def expected(self, y: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        return y

    def select(self, index: Tensor) -> Operator:
        return self

    def guess(self, y: Tensor, size: tuple[int, ...]) -> Tensor:
        """The shortest of the least-squares solutions, by 20 steps of conjugate gradients from 0."""
        return pseudo_inverse(self, y, (*y.shape[:2], *size))


@dataclass(frozen=True)
class Masked(Linear):
    """Some entries, the others 0: holes in a picture, gaps in a recording.

    Attributes:
        mask: (B or 1, C or 1, *size) bool, true where a signal is known.
    """

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.mask.to(x)

    def select(self, index: Tensor) -> Masked:
        return self if len(self.mask) == 1 else Masked(self.mask[index.to(self.mask.device)])


@dataclass(frozen=True)
class Identity(Linear):
    """The signal itself: with noise, denoising."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Shrink(Linear):
    """The means of blocks of ``factor`` entries along each axis: a smaller picture."""

    factor: int

    def __call__(self, x: Tensor) -> Tensor:
        pool = functional.avg_pool1d if x.dim() == 3 else functional.avg_pool2d
        return pool(x, self.factor)


@dataclass(frozen=True)
class Blur(Linear):
    """Convolution with a kernel, the signal going on beyond its edges as in a mirror.

    Attributes:
        kernel: (k,) or (k, k), k odd, shorter than twice the signal.
        stride: each how manieth sample is kept; with a low-pass kernel, a lower sampling rate.
    """

    kernel: Tensor
    stride: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        axes = self.kernel.dim()
        weight = self.kernel.to(x)[None, None].expand(x.shape[1], 1, *self.kernel.shape)
        around = functional.pad(x, [self.kernel.shape[0] // 2] * (2 * axes), mode="reflect")
        convolve = functional.conv1d if axes == 1 else functional.conv2d
        return convolve(around, weight, stride=self.stride, groups=x.shape[1])


@dataclass(frozen=True)
class Gain(Linear):
    """gain x."""

    gain: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.gain * x


@dataclass(frozen=True)
class Clipped:
    """gain x, cut off: an overexposed picture, a recording that was too loud.

    Attributes:
        lower, upper: (B or 1, C or 1, *size or 1s), where what is measured ends; infinite where it does not.
    """

    lower: Tensor
    upper: Tensor
    gain: float = 1.0
    linear = False

    @classmethod
    def consistent(cls, y: Tensor, limit: Tensor, gain: float = 1.0) -> Clipped:
        """What has led to measurements y (B, C, *size), cut off at +-limit, broadcastable to them.

        Bounds are only where y has reached them, and only that one: a signal on the other side of 0 is then not flat,
        and a gradient leads it back.
        """
        reached = REACHED * limit
        return cls(torch.where(y <= -reached, -limit, -torch.inf), torch.where(y >= reached, limit, torch.inf), gain)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(self.gain * x, self.lower.to(x)), self.upper.to(x))

    def select(self, index: Tensor) -> Clipped:
        if len(self.lower) == 1:
            return self
        index = index.to(self.lower.device)
        return Clipped(self.lower[index], self.upper[index], self.gain)

    @property
    def uncut(self) -> Operator:
        return Gain(self.gain)

    def guess(self, y: Tensor, size: tuple[int, ...]) -> Tensor:
        return y / self.gain

    def expected(self, y: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        """E[z | z > limit] = mean + spread phi(a) / Phi(-a), a = (limit - mean) / spread; below likewise (Tobin 1958,
        Econometrica 26, 24)."""
        lower, upper = self.lower.to(y), self.upper.to(y)
        above, below = mean + spread * _mills((upper - mean) / spread), mean - spread * _mills((mean - lower) / spread)
        return torch.where(y >= REACHED * upper, above, torch.where(y <= REACHED * lower, below, y))


@dataclass(frozen=True)
class Both:
    """One operator after another: after one that is not linear, a mask."""

    first: Operator
    second: Operator

    @property
    def linear(self) -> bool:
        """Whether both are."""
        return self.first.linear and self.second.linear

    @property
    def uncut(self) -> Operator:
        return Both(self.first.uncut, self.second)

    def __call__(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))

    def select(self, index: Tensor) -> Both:
        return Both(self.first.select(index), self.second.select(index))

    def guess(self, y: Tensor, size: tuple[int, ...]) -> Tensor:
        """As for any linear operator; where one is not linear, the first's guess from y as it is."""
        return pseudo_inverse(self, y, (*y.shape[:2], *size)) if self.linear else self.first.guess(y, size)

    def expected(self, y: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        return y if self.linear else self.second(self.first.expected(y, mean, spread))


def adjoint(operator: Callable[[Tensor], Tensor], y: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A' y (B, C, *size) for a linear operator: by back-propagation, which is nothing else."""
    with torch.enable_grad():
        x = torch.zeros(shape, dtype=y.dtype, device=y.device, requires_grad=True)
        return torch.autograd.grad(operator(x), x, y)[0]


@torch.no_grad()
def pseudo_inverse(operator: Callable[[Tensor], Tensor], y: Tensor, shape: tuple[int, ...], steps: int = 20) -> Tensor:
    """Least-squares solution nearest 0 by conjugate gradients on A'A x = A'y, each sample for itself.

    So few steps leave out the directions that the operator almost loses, in which there would be only noise (Hansen
    1998, Rank-deficient and discrete ill-posed problems, ch. 6).
    """
    return conjugate_gradients(lambda x: adjoint(operator, operator(x), shape), adjoint(operator, y, shape), steps)


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Tensor:
    """x (B, ...) with matrix(x) = right, each sample for itself, after so many steps from 0; ``matrix`` is linear,
    symmetric and not negative (Hestenes and Stiefel 1952)."""
    x = torch.zeros_like(right)
    rest = along = right
    first = square = dot(rest, rest)
    least = (8 * torch.finfo(right.dtype).eps) ** 2 * first  # what is left below that is rounding, and leads anywhere
    for _ in range(steps):
        image = matrix(along)
        bend = dot(along, image)
        going = (square > least) & (bend > 0)
        length = torch.where(going, square / bend, 0)
        x = x + per_sample(length, x) * along
        rest = rest - per_sample(length, x) * image
        before, square = square, dot(rest, rest)
        along = rest + per_sample(torch.where(going, square / before, 0), x) * along
    return x


def _mills(a: Tensor) -> Tensor:
    """phi(a) / Phi(-a) of the standard Gaussian, for a from -inf to large."""
    return torch.exp(-0.5 * a.square() - 0.5 * math.log(2 * math.pi) - torch.special.log_ndtr(-a))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(B,), of samples (B, ...)."""
    return (a * b).flatten(1).sum(1)


def gaussian_kernel(spread: float, axes: int = 2) -> Tensor:
    """A Gaussian of that standard deviation in samples, cut off at three of them: (k,) or (k, k), of sum 1."""
    reach = max(1, math.ceil(3 * spread))
    line = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * spread**2))
    line = line / line.sum()
    return line if axes == 1 else torch.outer(line, line)


def motion_kernel(length: float, degrees: float) -> Tensor:
    """A straight movement by ``length`` pixels at that angle to the x axis, y upwards: (k, k), of sum 1."""
    reach = max(1, math.ceil(length / 2))
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1)
    angle = math.radians(degrees)
    for share in torch.linspace(-0.5, 0.5, max(2, round(8 * length))).tolist():
        x, y = reach + share * length * math.cos(angle), reach - share * length * math.sin(angle)
        left, top = math.floor(x), math.floor(y)
        for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            if weight > 0:
                kernel[row, column] += weight
    return kernel / kernel.sum()


def low_pass(factor: int) -> Tensor:
    """The filter before only each ``factor``-th sample is kept: 16 factor + 1 taps, half down at the new Nyquist."""
    from scipy.signal import firwin

    return torch.from_numpy(firwin(16 * factor + 1, 1 / factor)).float()
