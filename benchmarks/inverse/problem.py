"""What every method is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp

from molflow.adapters.adapter import Adapter
from molflow.inverse.operators import Clipped, Masked, Operator
from molflow.inverse.solve import plain_signal


@dataclass(frozen=True)
class Problem:
    """B measurements y = A(x) + noise, and the prior of the signals x that were measured.

    Attributes:
        adapter: the prior; methods without one use its shape alone.
        operator: A.
        measured: (B, ...).
        noise: standard deviation, of signals in [-1, 1].
    """

    adapter: Adapter
    operator: Operator
    measured: Tensor
    noise: float

    def __len__(self) -> int:
        return len(self.measured)

    def select(self, index: Tensor) -> Problem:
        """The problems ``index`` (b,)."""
        return Problem(self.adapter, self.operator.select(index), self.measured[index], self.noise)

    def measure(self, end: Tensor) -> Tensor:
        """What would be measured of endpoints (B, *shape) of the flow, without noise."""
        return self.operator(self.adapter.decode(end))

    def guess(self) -> Tensor:
        """Signals (B, C, *size) from which the measurements may have come."""
        return self.operator.guess(self.measured, tuple(plain_signal(self.adapter).shape[2:]))


Damage = Callable[[Tensor, torch.Generator], Operator]
"""What is done to clean signals, some of it at random."""


def damaged(damage: Damage, noise: float, x: Tensor, adapter: Adapter, seed: int) -> Problem:
    """What is measured of clean signals x (B, C, *size)."""
    rng = torch.Generator().manual_seed(seed)
    operator = damage(x, rng)

    def noisy(y: Tensor) -> Tensor:
        return y + noise * torch.randn(y.shape, generator=rng)

    if isinstance(operator, Clipped):  # a sensor's noise comes before its limits
        measured = noisy(operator.gain * x).clamp(-operator.upper, operator.upper)
        return Problem(adapter, Clipped.consistent(measured, operator.upper, operator.gain), measured, noise)
    measured = noisy(operator(x))
    return Problem(adapter, operator, operator(measured) if isinstance(operator, Masked) else measured, noise)


@dataclass(frozen=True)
class Solved:
    """Signals (B, C, *size), and the evaluations of the velocity spent on each, a backward pass counting as two."""

    signal: Tensor
    nfe: float = 0.0


def always(problem: Problem) -> bool:
    """Of methods for any operator."""
    return True


def linear(problem: Problem) -> bool:
    """Of methods for linear operators."""
    return problem.operator.linear


@dataclass(frozen=True)
class Method:
    """A method in a table.

    Attributes:
        label: what it is called there.
        solve: called as solve(problem, seed=..., **knobs).
        grid: knobs of which those are taken that serve the validation signals best.
        efforts: knobs that spend more or less, in this order in the charts; the last ones are the table's.
        applies: whether it can solve such a problem.
    """

    label: str
    solve: Callable[..., Solved]
    grid: Sequence[Mapping[str, Any]] = ({},)
    efforts: Sequence[Mapping[str, Any]] = ({},)
    applies: Callable[[Problem], bool] = always


def misfit_gradient(measure: Callable[[Tensor], Tensor], measured: Tensor, at: Tensor) -> Tensor:
    """Gradient of |A(x) - y|² / 2 at x."""
    said, transposed = vjp(measure, at)
    return transposed(said - measured)[0]


def steepness(measure: Callable[[Tensor], Tensor], at: Tensor, steps: int = 30) -> float:
    """Largest |A v|² / |v|² about x, over all samples, by power iteration: the largest curvature of |A(x) - y|² / 2."""
    _, transposed = vjp(measure, at)
    v = torch.randn(at.shape, generator=torch.Generator().manual_seed(0)).to(at)
    square = torch.ones(len(at)).to(at)
    for _ in range(steps):
        v = v / v.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (v.dim() - 1))
        image = jvp(measure, (at,), (v,))[1]
        square = image.flatten(1).square().sum(1)
        v = transposed(image)[0]
    return float(square.max())
