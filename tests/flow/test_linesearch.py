"""The strong Wolfe conditions hold where a search says it has succeeded."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from molflow.flow import linesearch
from molflow.flow.linesearch import CURVATURE, DECREASE, MAX_TRIALS, LineSearch

F64 = torch.float64
Phi = Callable[[Tensor], Tensor]


def evaluate(phis: list[Phi], steps: Tensor) -> tuple[Tensor, Tensor]:
    a = steps.detach().requires_grad_()
    values = torch.stack([phi(x) for phi, x in zip(phis, a, strict=True)])
    (slopes,) = torch.autograd.grad(values.sum(), a)
    values = values.detach()
    return torch.where(values.isfinite() & slopes.isfinite(), values, torch.inf), slopes


def search(phis: list[Phi], max_step: float | None = None) -> tuple[LineSearch, list[LineSearch]]:
    """Run until all are over; each function's final state, and the states of all rounds."""
    loss, slope = evaluate(phis, torch.zeros(len(phis), dtype=F64))
    state = linesearch.start(loss, slope[:, None], torch.ones(len(phis), 1, dtype=F64), max_step)
    final, open_ = state, torch.ones(len(phis), dtype=torch.bool)
    rounds = []
    while open_.any():
        loss, slope = evaluate(phis, state.step)
        state, over = linesearch.tell(state, loss, slope[:, None], slope)
        final = state.where(open_, final)
        open_ = open_ & ~over
        rounds.append(state)
    return final, rounds


def wolfe(phis: list[Phi], s: LineSearch) -> Tensor:
    value, slope = evaluate(phis, s.lo)
    torch.testing.assert_close(value, s.loss_lo)
    torch.testing.assert_close(slope, s.grad_lo[:, 0])
    decrease = value <= s.loss0 + DECREASE * s.lo * s.slope0
    return (s.lo > 0) & decrease & (slope.abs() <= -CURVATURE * s.slope0)


# More & Thuente 1994 (ACM TOMS 20, 286), functions (5.1), (5.2), and others that stress one branch each.
HARD: dict[str, Phi] = {
    "at once": lambda a: (a - 1) ** 2,
    "far away": lambda a: (a - 500) ** 2,
    "very near": lambda a: (a - 1e-4) ** 2,
    "More-Thuente 5.1": lambda a: -a / (a**2 + 2),
    "More-Thuente 5.2": lambda a: (a + 0.004) ** 5 - 2 * (a + 0.004) ** 4,
    "wall at 0.3": lambda a: -torch.log(0.3 - a) - 5 * a,
    "NaN beyond 0.01": lambda a: (a - 0.005) ** 2 + 1e-6 * torch.sqrt(0.01 - a),
    "many minima": lambda a: -torch.sin(7 * a) + 0.05 * (a - 4) ** 2,
    "huge": lambda a: 1e12 * torch.cosh(3 * a - 2),
    "tiny": lambda a: 1e-12 * torch.cosh(3 * a - 2),
}


def test_hard_functions_all_in_one_batch() -> None:
    phis = list(HARD.values())
    final, _ = search(phis)
    assert wolfe(phis, final).all(), dict(zip(HARD, wolfe(phis, final).tolist(), strict=True))
    assert (final.trials < MAX_TRIALS).all()


@pytest.mark.parametrize("name", HARD)
def test_a_search_does_not_depend_on_its_neighbours(name: str) -> None:
    together, _ = search(list(HARD.values()))
    alone, _ = search([HARD[name]])
    i = list(HARD).index(name)
    assert together.lo[i] == alone.lo[0] and together.trials[i] == alone.trials[0]


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.floats(0.01, 10), st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_any_quartic_that_starts_downhill(coefficients: list[float], top: float, slope: float) -> None:
    b, c, d = coefficients
    phis: list[Phi] = [lambda a: top * a**4 + b * a**3 + c * a**2 - slope * a + d]
    final, _ = search(phis)
    assert wolfe(phis, final).all()


def test_the_bracket_shrinks_and_always_holds_the_best_point() -> None:
    phis: list[Phi] = [HARD["very near"], HARD["wall at 0.3"], HARD["More-Thuente 5.2"]]
    _, rounds = search(phis)
    for before, after in pairwise(rounds):
        bracketed = before.hi.isfinite()
        width, next_width = (before.hi - before.lo).abs(), (after.hi - after.lo).abs()
        assert (next_width <= width)[bracketed].all()
        assert (after.loss_lo <= before.loss_lo).all()


def test_the_longest_step_is_kept_and_taken_if_still_downhill() -> None:
    phis: list[Phi] = [HARD["far away"], lambda a: (a - 0.1) ** 2]
    final, rounds = search(phis, max_step=3.0)
    assert all((s.step <= 3.0).all() for s in rounds)
    assert final.lo[0] == 3.0 and wolfe(phis, final)[1]


def test_a_search_without_any_lower_point_fails() -> None:
    # The value rises while its gradient says that it falls.
    final, _ = search([lambda a: 2 * a.detach() - a])
    assert final.lo[0] == 0
