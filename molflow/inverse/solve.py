"""Solving an inverse problem at the source: D-Flow (Ben-Hamu et al. 2024, arXiv 2402.14017), with this solver core.

    min over x(0) of |A(decode(x(1))) - y|² / (2 noise²) - log p(|x(0)|),   x(1) = flow(x(0))

As published: few midpoint steps, L-BFGS with a line search, a start that is the backward ODE of the pseudo-inverse
blended with noise, sqrt(a) x + sqrt(1 - a) noise, and the regulariser of the source's norm, which is chi-distributed.
Its weight is no free number here: with the noise known, the sum is minus the logarithm of a posterior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from molflow.adapters.adapter import Adapter
from molflow.flow.solvers import Method, nfe_of
from molflow.flow.source import Shell, SourceResult, optimise_source
from molflow.flow.state import State
from molflow.inverse.operators import Operator

SEEN = 12
"""Signals that are kept of the way to a solution."""

LEAST_NOISE = 0.01
"""Share of a measurement's root mean square that is reckoned as noise where there is less: no flow fits a signal more
closely."""


@dataclass(frozen=True)
class Recipe:
    """How the source is sought.

    Attributes:
        steps, method: of the ODE.
        blend: a, the share of the inverted pseudo-inverse in the start; the rest is noise.
        evals: most evaluations of loss and gradient for each sample.
        history: curvature pairs of L-BFGS.
        norm: the source's norm is left to the ``chi`` regulariser, or held on the ``shell`` around which Gaussian draws
            lie, without a regulariser.
    """

    steps: int = 3
    method: Method = "midpoint"
    blend: float = 0.1
    evals: int = 60
    history: int = 10
    norm: Literal["chi", "shell"] = "chi"


@dataclass(frozen=True)
class Restored:
    """What a solution is.

    Attributes:
        signal: (B, C, *size), the decoded endpoint of the best source.
        path: what was tried on the way, `SEEN` signals at most; the signal is the last.
        start: the pseudo-inverse, or another guess, that it was started from.
        misfit: (B,) root mean square of A(signal) - y.
        result: the source and what was spent on it.
    """

    signal: Tensor
    path: list[Tensor]
    start: Tensor
    misfit: Tensor
    result: SourceResult


def restore(adapter: Adapter, operator: Operator, measured: Tensor, *, noise: float, seed: int = 0,
            recipe: Recipe | None = None) -> Restored:
    """Solve B inverse problems at once, each by its own L-BFGS.

    Args:
        adapter: the prior.
        operator: A, of B samples or the same for all.
        measured: y (B, ...).
        noise: standard deviation of the measurements' noise, of signals in [-1, 1].
        seed: of the noise in the start.
        recipe: by default as published.
    """
    recipe = recipe or Recipe()
    measured = measured.to(adapter.device, adapter.dtype)
    variance = assumed_variance(measured, noise)
    space, run = adapter.space(len(measured)), adapter.flow(recipe.steps, recipe.method, gradients=True)

    def flow(x0: State, index: Tensor) -> State:
        return {**run(x0, index), "source": x0["x"]}  # whose norm the loss asks for

    path: list[Tensor] = []
    calls = 0

    def loss(end: State, index: Tensor) -> Tensor:
        nonlocal calls
        signal = adapter.decode(end["x"])
        if calls % -(-recipe.evals // (SEEN - 1)) == 0:
            now = path[-1].clone() if path else signal.detach().clone()  # the first is of all samples
            now[index] = signal.detach()
            path.append(now)
        calls += 1
        error = operator.select(index)(signal) - measured[index]
        misfit = error.flatten(1).square().sum(1) / (2 * variance[index])
        return misfit if recipe.norm == "shell" else misfit + chi_penalty(end["source"])

    with torch.no_grad():
        guess = operator.guess(measured, tuple(plain_signal(adapter).shape[2:]))
    back = adapter.invert(adapter.encode(guess), recipe.steps, recipe.method)
    fresh = space.noise(torch.Generator(adapter.device).manual_seed(seed))
    start = {"x": math.sqrt(recipe.blend) * back["x"] + math.sqrt(1 - recipe.blend) * fresh["x"]}
    shell = Unbound(space, {}) if recipe.norm == "chi" else Shell.typical(space)
    result = optimise_source(flow, loss, space, start, max_evals=recipe.evals, history=recipe.history, shell=shell,
                             nfe_per_flow=nfe_of(recipe.method, recipe.steps))
    with torch.no_grad():
        signal = adapter.decode(result.endpoint["x"])
        misfit = root_mean_square(operator(signal) - measured)
    return Restored(signal, [*path, signal], guess, misfit, result)


def assumed_variance(measured: Tensor, noise: float) -> Tensor:
    """(B,) variance that measurements (B, ...) are taken to have, for a known standard deviation of their noise."""
    size = root_mean_square(measured).clamp_min(1e-3)
    return (LEAST_NOISE * size).clamp_min(noise).square()


def plain_signal(adapter: Adapter) -> Tensor:
    """(1, C, *size), what endpoints of zeros mean: for its shape."""
    with torch.no_grad():
        return adapter.decode(torch.zeros(1, *adapter.shape, dtype=adapter.dtype, device=adapter.device))


def root_mean_square(x: Tensor) -> Tensor:
    """(B, ...) -> (B,)."""
    return x.flatten(1).square().mean(1).sqrt()


def chi_penalty(source: Tensor) -> Tensor:
    """-log p(|x|) of sources (B, *shape), less its lowest value: the norm of D Gaussian numbers is chi-distributed,
    log p(r) = (D - 1) log r - r² / 2 + const, highest at r = sqrt(D - 1)."""
    square = source.flatten(1).square().sum(1)
    others = source[0].numel() - 1
    return (square - others * (1 + (square / others).log())) / 2


class Unbound(Shell):
    """No shell: the sources may have any norm."""

    def retract(self, w: Tensor) -> Tensor:
        return w

    def select(self, index: Tensor) -> Unbound:
        return Unbound(self.space.select(index), {})
