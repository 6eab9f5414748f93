"""Integrating dx/dt = u(t, x) in either direction, with exact gradients in bounded memory.

Explicit Runge-Kutta methods (Hairer, Norsett & Wanner, Solving ODEs I, sec. II.1) and the two-step Adams-Bashforth
method (sec. III.1, III.5) on a given time grid, and the adaptive Dormand-Prince method of torchdiffeq. Gradients
are those of the discrete solution: a gradient of the loss that is really being computed, which a line search
needs; the continuous adjoint is not (Ben-Hamu et al. 2024, D-Flow, arXiv 2402.14017, likewise back-propagate
through the solver with checkpoints).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from molflow.flow.state import State, add, batch_size

Method = Literal["euler", "adams", "midpoint", "heun", "rk4"]


class VelocityField(Protocol):
    """u(t, x), which may look at what it said last time (self-conditioning)."""

    def __call__(self, t: Tensor, x: State, memory: State | None) -> tuple[State, State | None]:
        """Velocity at times t (B,) and states x, and the memory to hand to the next evaluation.

        `memory` is None at the first evaluation of an integration, later what the last one returned; the
        solver never looks inside. Gradients flow through it unless the field detaches it.
        """
        ...


def memoryless(function: Callable[[Tensor, State], State]) -> VelocityField:
    """A velocity field from a plain function of (t, x)."""

    def field(t: Tensor, x: State, memory: State | None) -> tuple[State, State | None]:
        return function(t, x), None

    return field


@dataclass(frozen=True)
class Solution:
    """What an integration returns.

    Attributes:
        state: x at the last time.
        nfe: evaluations of u per sample in the forward pass.
        trajectory: x at every grid time, the first included, if it was asked for.
    """

    state: State
    nfe: int
    trajectory: list[State] | None = None


@dataclass(frozen=True)
class _Tableau:
    """Butcher tableau: k_i = u(t + nodes_i h, x + h sum_j rows_ij k_j); the step is h sum_i weights_i k_i."""

    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


_EULER = _Tableau((0.0,), ((),), (1.0,))
_TABLEAUX: dict[Method, _Tableau] = {
    "euler": _EULER,
    "adams": _EULER,  # one evaluation a step; `_step` adds what the step before knows
    "midpoint": _Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": _Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": _Tableau(
        (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
    ),
}


def nfe_of(method: Method, steps: int) -> int:
    """Evaluations of u that `integrate` spends on a grid of `steps` steps."""
    return steps * len(_TABLEAUX[method].nodes)


def time_grid(steps: int, *, power: float = 1.0) -> Tensor:
    """Times t = 1 - (1 - s)^power for s = 0, 1/steps, ..., 1, as (steps + 1,) float64 on the CPU.

    power = 1 is uniform; power > 1 makes the steps near the data shorter. Flip it to integrate backward.
    Raises ValueError unless steps >= 1 and power > 0.
    """
    if steps < 1 or power <= 0:
        raise ValueError(f"need steps >= 1 and power > 0, got {steps} and {power}")
    return 1 - (1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)) ** power


def integrate(
    field: VelocityField,
    x: State,
    *,
    grid: Tensor,
    method: Method,
    checkpoint: bool = False,
    trajectory: bool = False,
) -> Solution:
    """Integrate dx/dt = u(t, x) over a fixed grid, forward or backward in time.

    Args:
        field: u, called as field(t (B,), x, memory). Memory is handed on through stages and steps.
        x: state at grid[0], {key: (B, ...)}.
        grid: (T + 1,) strictly increasing or strictly decreasing times. Keep it on the CPU: its values are
            read one by one.
        method: "euler" (order 1), "adams" (order 2 at Euler's cost: the slope is extrapolated from the step before;
            the first step is Euler's), "midpoint", "heun" (order 2) or "rk4" (order 4, the classical one).
        checkpoint: keep only the states (and memories) at the grid times for the backward pass and compute
            the inside of each step again there. Gradients are the same, to x and to the field's parameters;
            activation memory is that of one step, time one more forward pass.
        trajectory: return the states at all grid times too.

    Raises:
        ValueError: grid is not one-dimensional, has fewer than two times or is not strictly monotone.
    """
    times = _checked_times(grid)
    tableau = _TABLEAUX[method]
    states = [x]
    memory: State | None = None
    slope: State | None = None
    taken = 0.0
    for start, stop in pairwise(times):
        h = stop - start
        # x + h (u + (h / 2 h_before) (u - u_before)): the slope in the middle of the step, by a straight line
        share = h / (2 * taken) if method == "adams" and slope else 0.0
        arguments = field, tableau, start, h, x, memory, slope if share else None, share
        if checkpoint:
            x, memory, slope = recompute(_step, *arguments, use_reentrant=False)
        else:
            x, memory, slope = _step(*arguments)
        taken = h
        if trajectory:
            states.append(x)
    return Solution(x, nfe_of(method, len(times) - 1), states if trajectory else None)


def integrate_adaptive(
    field: VelocityField, x: State, *, t0: float, t1: float, rtol: float, atol: float
) -> Solution:
    """Integrate from t0 to t1 with torchdiffeq's adaptive dopri5, differentiable by back-propagation.

    The field gets memory = None at every evaluation: with memory it would be no ODE, and a rejected step
    could not be taken back. All samples share the step size, chosen by the error's root mean square over the
    batch, so a sample's result depends on its batch within the tolerance, and nfe is that of the whole batch.

    Raises:
        AssertionError: from torchdiffeq, if the step size underflows.
        ModuleNotFoundError: torchdiffeq is not installed; the extra `benchmarks` brings it.
    """
    from torchdiffeq import odeint

    keys = list(x)
    size = batch_size(x)
    nfe = 0

    def derivative(t: Tensor, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal nfe
        nfe += 1
        velocity, _ = field(t.expand(size), dict(zip(keys, values, strict=True)), None)
        return tuple(velocity[key] for key in keys)

    times = next(iter(x.values())).new_tensor([t0, t1])
    path = odeint(derivative, tuple(x[key] for key in keys), times, rtol=rtol, atol=atol, method="dopri5")
    return Solution({key: values[-1] for key, values in zip(keys, path, strict=True)}, nfe)


def _step(
    field: VelocityField, tableau: _Tableau, t: float, h: float, x: State, memory: State | None,
    before: State | None, share: float,
) -> tuple[State, State | None, State]:
    """x after one step, the field's memory, and u at the step's start; with ``before``, u at the start of the step
    before, u is replaced by (1 + share) u - share before."""
    like = next(iter(x.values()))
    size = batch_size(x)
    slopes: list[State] = []
    for node, row in zip(tableau.nodes, tableau.rows, strict=True):
        time = like.new_full((size,), t + node * h)
        slope, memory = field(time, _combine(x, slopes, row, h), memory)
        slopes.append(slope)
    if before is not None:
        return _combine(x, [slopes[0], before], (1 + share, -share), h), memory, slopes[0]
    return _combine(x, slopes, tableau.weights, h), memory, slopes[0]


def _combine(x: State, slopes: list[State], weights: tuple[float, ...], h: float) -> State:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = add(x, slope, weight * h)
    return x


def _checked_times(grid: Tensor) -> list[float]:
    steps = grid.diff() if grid.dim() == 1 else grid.new_empty(0)
    if len(steps) == 0 or not (bool((steps > 0).all()) or bool((steps < 0).all())):
        raise ValueError("grid must be one-dimensional and strictly monotone, with at least two times")
    return grid.tolist()
