"""Batched L-BFGS: every sample is a problem of its own (Nocedal & Wright, 2nd ed., ch. 7.2, algorithm 7.5).

One L-BFGS over a whole batch couples samples that have nothing to do with each other: one curvature, one step
length, one moment to stop. Here each has its own, and still nothing loops over samples: each round evaluates
the function once, on a batch of the trial points of all samples that have not stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from molflow.flow import linesearch
from molflow.flow.linesearch import LineSearch
from molflow.flow.record import Record

Objective = Callable[[Tensor, Tensor], Tensor]
"""fun(z (b, D), index (b,) positions in the batch) -> loss (b,), row by row independent, differentiable."""


@dataclass(frozen=True)
class Minimum:
    """The best point seen of each of B problems.

    Attributes:
        z: (B, D), the evaluated point with the lowest loss.
        loss: (B,), the loss of exactly that point.
        evals: (B,) int64, evaluations of loss and gradient spent.
        losses: (rounds, B), lowest loss so far after each round; constant once a sample has stopped.
        converged: (B,) bool, stopped by gtol, ftol or target, rather than by max_evals or a failed search.
    """

    z: Tensor
    loss: Tensor
    evals: Tensor
    losses: Tensor
    converged: Tensor


@dataclass(frozen=True)
class _Quadratic(Record):
    """The curvature model: pairs s = z' - z, y = g' - g, newest last, and the scale of H_0 = scale * 1.

    An empty slot has inverse = 0, which drops it from the two-loop recursion without a branch.
    """

    s: Tensor  # (b, m, D)
    y: Tensor  # (b, m, D)
    inverse: Tensor  # (b, m), 1 / s.y
    scale: Tensor  # (b,)

    def direction(self, grad: Tensor) -> Tensor:
        """-H grad by the two-loop recursion (algorithm 7.4)."""
        q = -grad
        pairs = list(zip(self.s.unbind(1), self.y.unbind(1), self.inverse.unbind(1), strict=True))
        alphas: list[Tensor] = []
        for s, y, inverse in reversed(pairs):
            alphas.append(inverse * _dot(s, q))
            q = q - alphas[-1][:, None] * y
        q = self.scale[:, None] * q
        for (s, y, inverse), alpha in zip(pairs, reversed(alphas), strict=True):
            q = q + (alpha - inverse * _dot(y, q))[:, None] * s
        return q

    def push(self, s: Tensor, y: Tensor, where: Tensor) -> _Quadratic:
        """With the pair (s, y), each (b, D), in the rows `where` (b,) in which s.y is safely positive."""
        curvature = _dot(s, y)
        # The strong Wolfe conditions imply s.y > 0; a step cut short by max_step need not have it.
        tiny = torch.finfo(s.dtype).eps * s.norm(dim=1) * y.norm(dim=1)
        use = where & (curvature > tiny)
        pushed = _Quadratic(
            torch.cat([self.s[:, 1:], s[:, None]], 1),
            torch.cat([self.y[:, 1:], y[:, None]], 1),
            torch.cat([self.inverse[:, 1:], (1 / curvature)[:, None]], 1),
            curvature / _dot(y, y),  # eq. 7.20
        )
        return pushed.where(use, self)

    def is_empty(self) -> Tensor:
        """(b,) bool: no pair yet, so that the direction is steepest descent."""
        return (self.inverse == 0).all(1)

    def emptied(self, where: Tensor) -> _Quadratic:
        """Without pairs in the rows `where` (b,) bool; the scale, the last curvature met, stays."""
        return replace(self, inverse=torch.where(where[:, None], 0.0, self.inverse))


@dataclass(frozen=True)
class _Active(Record):
    """The problems that go on: the current point of each, its direction and its line search."""

    index: Tensor  # (b,) positions in the batch
    z: Tensor  # (b, D)
    loss: Tensor  # (b,)
    grad: Tensor  # (b, D)
    direction: Tensor  # (b, D)
    model: _Quadratic
    search: LineSearch


def minimise(
    fun: Objective,
    z0: Tensor,
    *,
    max_evals: int,
    history: int = 10,
    gtol: float = 1e-5,
    ftol: float = 1e-9,
    max_step: float | None = None,
    target: float | None = None,
    floor: float | None = None,
) -> Minimum:
    """Minimise B independent functions by L-BFGS with a strong-Wolfe line search.

    The first step has length 1 (the scale of a Gaussian source) whatever the loss's units, or Polyak's length
    2 (loss - floor) / |gradient| where that is shorter: the step that would reach a parabola's known minimum
    (Polyak 1987, Introduction to Optimization, sec. 5.3). A trial point with
    a loss or gradient that is not finite is stepped back from. A sample whose line search fails starts once
    more along steepest descent, and stops if that fails too. Trial points count as seen.

    Args:
        fun: the losses; called with the rows that have not stopped and their positions in the batch.
        z0: start (B, D).
        max_evals: evaluations allowed per sample, the one at z0 included.
        history: curvature pairs kept.
        gtol: stop where max |gradient| <= gtol.
        ftol: stop where a step lowers the loss by no more than ftol * max(|loss before|, |loss after|).
        max_step: longest Euclidean length of a step (trust radius); None for no bound.
        target: stop where the loss is <= target.
        floor: the lowest value that the loss can have, where that is known: 0 for a sum of squares that can vanish.

    Raises:
        ValueError: max_evals or history below 1, or z0 is not (B, D).
    """
    if max_evals < 1 or history < 1 or z0.dim() != 2:
        raise ValueError(
            f"need max_evals, history >= 1 and z0 (B, D); got {max_evals}, {history}, {z0.shape}"
        )
    z = z0.detach()
    index = torch.arange(len(z), device=z.device)
    loss, grad = _evaluate(fun, z, index)
    best_z, best_loss = z.clone(), loss.clone()
    evals = torch.ones_like(index)
    losses = [best_loss.clone()]
    usable = _usable(loss, grad)
    converged = _reached(best_loss, target) | (usable & (grad.abs().amax(1) <= gtol))

    active = _begin(z, loss, grad, history, max_step, floor).rows(usable & ~converged)
    while len(active.index) and len(losses) < max_evals:
        a, index = active, active.index
        z = a.z + a.search.step[:, None] * a.direction
        loss, grad = _evaluate(fun, z, index)
        evals[index] += 1
        better = loss.isfinite() & (loss < best_loss[index])
        best_z[index[better]], best_loss[index[better]] = z[better], loss[better]
        losses.append(best_loss.clone())

        active, stepped, failed = _advance(a, loss, grad, max_step)
        drop, size = a.loss - active.loss, torch.maximum(a.loss.abs(), active.loss.abs())
        done = stepped & ((active.grad.abs().amax(1) <= gtol) | (drop <= ftol * size))
        done = done | _reached(best_loss[index], target)
        converged[index] = done
        active = active.rows(~(done | failed))
    return Minimum(best_z, best_loss, evals, torch.stack(losses), converged)


def _begin(
    z: Tensor, loss: Tensor, grad: Tensor, history: int, max_step: float | None, floor: float | None
) -> _Active:
    empty = z.new_zeros(len(z), history, z.shape[1])
    length = torch.ones_like(loss)
    if floor is not None:
        length = length.minimum(2 * (loss - floor) / grad.norm(dim=1))
    model = _Quadratic(empty, empty, empty[:, :, 0], length / grad.norm(dim=1))
    direction = model.direction(grad)
    search = linesearch.start(loss, grad, direction, max_step)
    return _Active(torch.arange(len(z), device=z.device), z, loss, grad, direction, model, search)


def _advance(
    active: _Active, loss: Tensor, grad: Tensor, max_step: float | None
) -> tuple[_Active, Tensor, Tensor]:
    """Take in one evaluation; say which samples made a step, (b,), and which can make none any more, (b,)."""
    a = active
    loss = torch.where(_usable(loss, grad), loss, torch.inf)
    search, over = linesearch.tell(a.search, loss, grad, _dot(grad, a.direction))
    stepped = over & (search.lo > 0)
    stuck = over & ~stepped
    failed = stuck & a.model.is_empty()

    s, y = search.lo[:, None] * a.direction, search.grad_lo - a.grad
    model = a.model.push(s, y, stepped).emptied(stuck)
    z = torch.where(stepped[:, None], a.z + s, a.z)
    loss = torch.where(stepped, search.loss_lo, a.loss)
    grad = torch.where(stepped[:, None], search.grad_lo, a.grad)

    direction = model.direction(grad)
    uphill = ~(_dot(direction, grad) < 0)  # by round-off in an ill-conditioned model
    model = model.emptied(uphill)
    direction = torch.where(uphill[:, None], -model.scale[:, None] * grad, direction)

    fresh = linesearch.start(loss, grad, direction, max_step)
    direction = torch.where(over[:, None], direction, a.direction)
    return _Active(a.index, z, loss, grad, direction, model, fresh.where(over, search)), stepped, failed


def _evaluate(fun: Objective, z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        loss = fun(z, index)
        (grad,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), grad


def _usable(loss: Tensor, grad: Tensor) -> Tensor:
    return loss.isfinite() & grad.isfinite().all(1)


def _reached(loss: Tensor, target: float | None) -> Tensor:
    return loss.isfinite() & (loss <= (-torch.inf if target is None else target))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)
