"""A line search for the strong Wolfe conditions, for many independent problems at once.

Nocedal & Wright, Numerical Optimization (2nd ed.), algorithms 3.5 (bracket) and 3.6 (zoom), as one state
machine: while no upper end is known, hi = inf, and then both algorithms sort a trial point by the same rules.
Each problem asks for one evaluation a round, at its own trial step, whatever stage it is in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from molflow.flow.record import Record

DECREASE = 1e-4
"""c_1: phi(a) <= phi(0) + c_1 a phi'(0) (Nocedal & Wright, eq. 3.7a)."""
CURVATURE = 0.9
"""c_2: |phi'(a)| <= c_2 |phi'(0)| (eq. 3.7b); loose, as is usual for quasi-Newton directions."""
MAX_TRIALS = 20
"""Evaluations after which a search settles for the lowest point that decreases enough, or fails."""


@dataclass(frozen=True)
class LineSearch(Record):
    """Where the searches of b problems stand; phi(a) = loss(z + a * direction).

    Attributes:
        loss0, slope0: phi(0) and phi'(0) < 0, (b,).
        longest: largest step allowed, (b,), may be inf.
        step: where to evaluate next, (b,).
        trials: evaluations so far, (b,) int64.
        lo, loss_lo, slope_lo: best step that decreases enough, phi and phi' there, (b,); lo = 0 at first.
        grad_lo: gradient at lo, (b, D).
        hi, loss_hi, slope_hi: the other end of the bracket, (b,); inf while there is none.
    """

    loss0: Tensor
    slope0: Tensor
    longest: Tensor
    step: Tensor
    trials: Tensor
    lo: Tensor
    loss_lo: Tensor
    slope_lo: Tensor
    grad_lo: Tensor
    hi: Tensor
    loss_hi: Tensor
    slope_hi: Tensor


def start(loss: Tensor, grad: Tensor, direction: Tensor, max_step: float | None) -> LineSearch:
    """Begin at step 1, or where the step's length reaches max_step.

    Args:
        loss: phi(0), (b,).
        grad, direction: gradient and descent direction at the current point, (b, D).
        max_step: largest Euclidean length of step * direction, or None.
    """
    slope = (grad * direction).sum(1)
    unbounded = torch.full_like(loss, torch.inf)
    longest = unbounded if max_step is None else max_step / direction.norm(dim=1)
    return LineSearch(
        loss0=loss,
        slope0=slope,
        longest=longest,
        step=longest.clamp(max=1.0),
        trials=torch.zeros_like(loss, dtype=torch.int64),
        lo=torch.zeros_like(loss),
        loss_lo=loss,
        slope_lo=slope,
        grad_lo=grad,
        hi=unbounded,
        loss_hi=unbounded,
        slope_hi=unbounded,
    )


def tell(search: LineSearch, loss: Tensor, grad: Tensor, slope: Tensor) -> tuple[LineSearch, Tensor]:
    """Take in the evaluations at `search.step`; say which searches are over.

    A search that is over has succeeded if lo > 0: lo is then the step to take. It satisfies the strong Wolfe
    conditions, or the first of them only if the search ended at the longest step, at round-off or after
    MAX_TRIALS. With lo = 0 it has failed.

    Args:
        search: the searches before the evaluation.
        loss: (b,), +inf or NaN where the evaluation failed: such a point is stepped back from.
        grad: (b, D) gradient there.
        slope: (b,) its product with the direction.

    Returns:
        The searches after it, and which are over, (b,) bool.
    """
    s, trial = search, search.step
    low = (loss <= s.loss0 + DECREASE * trial * s.slope0) & (loss < s.loss_lo)
    flat = slope.abs() <= -CURVATURE * s.slope0
    accepted = low & (flat | ((trial >= s.longest) & (slope < 0)))

    # A low trial becomes lo. Where the minimum lies behind it, the old lo becomes hi; with hi = inf that is
    # algorithm 3.5's test phi'(a) >= 0. A trial that is not low becomes hi.
    behind = low & (slope * (s.hi - s.lo) >= 0)
    after = replace(
        s,
        trials=s.trials + 1,
        lo=torch.where(low, trial, s.lo),
        loss_lo=torch.where(low, loss, s.loss_lo),
        slope_lo=torch.where(low, slope, s.slope_lo),
        grad_lo=torch.where(low[:, None], grad, s.grad_lo),
        hi=torch.where(low, torch.where(behind, s.lo, s.hi), trial),
        loss_hi=torch.where(low, torch.where(behind, s.loss_lo, s.loss_hi), loss),
        slope_hi=torch.where(low, torch.where(behind, s.slope_lo, s.slope_hi), slope),
    )
    # Once the decrease to be had inside the bracket is below round-off, comparing losses decides nothing.
    bracketed = after.hi.isfinite()
    gain = (after.hi - after.lo).abs() * after.slope_lo.abs()
    at_round_off = bracketed & (gain <= torch.finfo(loss.dtype).eps * after.loss_lo.abs())
    over = accepted | at_round_off | (after.trials >= MAX_TRIALS)
    return replace(after, step=torch.where(bracketed, _inside(after), _beyond(s, after))), over


def _inside(search: LineSearch) -> Tensor:
    """Next trial in the bracket: the cubic's minimum, kept off the ends, or the middle if there is none.

    Where the far end could not be evaluated at all the loss says nothing of how far to go back: a tenth of the
    way, since each further trial costs a whole evaluation.
    """
    s = search
    width = s.hi - s.lo
    cubic = _cubic_minimum(s.lo, s.loss_lo, s.slope_lo, s.hi, s.loss_hi, s.slope_hi)
    blind = torch.where(s.loss_hi.isfinite(), 0.5, 0.1)
    fraction = torch.where(cubic.isfinite(), (cubic - s.lo) / width, blind)
    return s.lo + fraction.clamp(0.1, 0.9) * width


def _beyond(before: LineSearch, after: LineSearch) -> Tensor:
    """Next trial with no bracket yet: 2 to 10 times further, as the cubic says."""
    b, a = before, after
    cubic = _cubic_minimum(b.lo, b.loss_lo, b.slope_lo, a.lo, a.loss_lo, a.slope_lo)
    further = torch.where(cubic.isfinite(), cubic, torch.inf)
    return torch.minimum(further.clamp(min=2 * a.lo, max=10 * a.lo), a.longest)


def _cubic_minimum(a: Tensor, fa: Tensor, ga: Tensor, b: Tensor, fb: Tensor, gb: Tensor) -> Tensor:
    """Minimum of the cubic with values fa, fb and slopes ga, gb at a, b (eq. 3.59); NaN if there is none."""
    d1 = ga + gb - 3 * (fa - fb) / (a - b)
    d2 = (b - a).sign() * (d1.square() - ga * gb).sqrt()
    return b - (b - a) * (gb + d2 - d1) / (gb - ga + 2 * d2)
