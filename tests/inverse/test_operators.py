"""Operators against scipy, numpy and algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import truncnorm
from torch import Tensor

from molflow.inverse.operators import (
    Blur,
    Both,
    Clipped,
    Identity,
    Masked,
    Operator,
    Shrink,
    adjoint,
    gaussian_kernel,
    low_pass,
    motion_kernel,
    pseudo_inverse,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


HALF = draw(2, 1, 12, 8) > 0
LINEAR = [(Masked(HALF), (2, 3, 12, 8)), (Shrink(4), (2, 3, 12, 8)), (Shrink(2), (2, 1, 12)),
          (Blur(gaussian_kernel(1.0)), (2, 3, 12, 8)), (Blur(motion_kernel(5, 30)), (2, 3, 12, 8)),
          (Blur(low_pass(2), 2), (2, 1, 64)), (Identity(), (2, 1, 8)),
          (Both(Blur(gaussian_kernel(0.7)), Masked(HALF)), (2, 1, 12, 8))]


@pytest.mark.parametrize(("operator", "shape"), LINEAR, ids=lambda x: type(x).__name__)
def test_linear_operators_are_and_the_adjoint_is_theirs(operator: Operator, shape: tuple[int, ...]) -> None:
    assert operator.linear
    x, other = draw(*shape), draw(*shape, seed=1)
    torch.testing.assert_close(operator(2 * x - other), 2 * operator(x) - operator(other))
    y = draw(*operator(x).shape, seed=2)
    torch.testing.assert_close((operator(x) * y).sum(), (x * adjoint(operator, y, shape)).sum())


@pytest.mark.parametrize("operator", [Masked(HALF[:1]), Shrink(2), Blur(gaussian_kernel(0.5))],
                         ids=lambda x: type(x).__name__)
def test_the_pseudo_inverse_is_numpys(operator: Operator) -> None:
    """Column by column: the operator as a matrix, and its Moore-Penrose inverse."""
    columns = torch.eye(96, dtype=torch.float64).view(96, 1, 12, 8)
    matrix = operator(columns).flatten(1).T.numpy()
    y = draw(3, *operator(columns).shape[1:], seed=3)
    exact = torch.from_numpy(y.flatten(1).numpy() @ np.linalg.pinv(matrix).T).view(3, 1, 12, 8)
    torch.testing.assert_close(operator.guess(y, (12, 8)), pseudo_inverse(operator, y, (3, 1, 12, 8)))
    torch.testing.assert_close(pseudo_inverse(operator, y, (3, 1, 12, 8), steps=200), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", [20, 100])
def test_the_pseudo_inverse_stays_where_it_has_arrived(steps: int) -> None:
    """In single precision it is there after ten steps; the rounding that is left led it to 1e7 once."""
    operator = Blur(low_pass(2), 2)
    y = 0.1 * torch.randn(3, 1, 2048, generator=torch.Generator().manual_seed(0))
    found = pseudo_inverse(operator, y, (3, 1, 4096), steps)
    exact = pseudo_inverse(operator, y.double(), (3, 1, 4096), steps)
    torch.testing.assert_close(found, exact.float(), rtol=1e-3, atol=1e-4)


def test_blurs_are_scipys() -> None:
    x = draw(1, 1, 20, 16)
    ours = Blur(gaussian_kernel(1.0))(x)[0, 0]
    theirs = ndimage.gaussian_filter(x[0, 0].numpy(), 1.0, mode="mirror", truncate=3.0)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-6, atol=1e-6)
    kernel = motion_kernel(6, 20)
    theirs = ndimage.correlate(x[0, 0].numpy(), kernel.double().numpy(), mode="mirror")
    torch.testing.assert_close(Blur(kernel)(x)[0, 0], torch.from_numpy(theirs))


def test_a_movement_is_as_long_and_points_as_it_should() -> None:
    kernel = motion_kernel(8, 30).double()
    assert kernel.sum().item() == pytest.approx(1)
    reach = len(kernel) // 2
    row, column = torch.meshgrid(*[torch.arange(-reach, reach + 1).double()] * 2, indexing="ij")
    assert (kernel * row).sum().abs() < 1e-6 and (kernel * column).sum().abs() < 1e-6
    along = (kernel * (column * np.cos(np.pi / 6) - row * np.sin(np.pi / 6)).square()).sum()
    across = (kernel * (column * np.sin(np.pi / 6) + row * np.cos(np.pi / 6)).square()).sum()
    assert along.item() == pytest.approx(8**2 / 12, rel=0.15) and across < 0.3


def test_the_low_pass_keeps_what_the_lower_rate_can_carry() -> None:
    t = torch.arange(800, dtype=torch.float64) / 8000
    for hertz, share in ((500, 1.0), (1500, 1.0), (2600, 0.0), (3500, 0.0)):
        tone = torch.sin(2 * torch.pi * hertz * t)[None, None]
        kept = Blur(low_pass(2), 2)(tone)[..., 20:-20]
        assert kept.square().mean().mul(2).sqrt().item() == pytest.approx(share, abs=0.02), hertz


def test_rows_are_chosen_where_an_operator_differs_between_them() -> None:
    x, index = draw(2, 1, 12, 8), torch.tensor([1])
    limit = torch.tensor([0.1, 0.5], dtype=torch.float64).view(2, 1, 1, 1)
    clipped = Clipped(-limit, limit)
    for operator in (Masked(HALF), clipped, Both(clipped, Masked(HALF)), Shrink(2)):
        torch.testing.assert_close(operator.select(index)(x[index]), operator(x)[index])
    assert not clipped.linear and not Both(clipped, Masked(HALF)).linear
    assert clipped(x).abs().amax((1, 2, 3)).tolist() == pytest.approx([0.1, 0.5])
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(Clipped(-one, one, 2.0)(x), (2 * x).clamp(-1, 1))
    torch.testing.assert_close(Clipped(-one, one, 2.0).guess(x, (12, 8)), x / 2)


def test_what_was_cut_off_is_expected_as_of_a_truncated_gaussian() -> None:
    limit = torch.tensor(0.5, dtype=torch.float64)
    clipped = Clipped(-limit.view(1, 1, 1, 1), limit.view(1, 1, 1, 1), 2.0)
    mean = torch.tensor([-9.0, 0.1, 3.0, 0.2, -0.4, 9.0], dtype=torch.float64).view(1, 1, 6, 1)
    y = torch.tensor([0.5, 0.5, 0.5, 0.3, -0.5, -0.5], dtype=torch.float64).view(1, 1, 6, 1)
    spread = torch.full((1, 1, 1, 1), 0.2, dtype=torch.float64)
    said = clipped.expected(y, mean, spread).flatten()
    for place in (1, 2):
        exact = truncnorm.mean((0.5 - mean.flatten()[place]) / 0.2, np.inf, loc=mean.flatten()[place], scale=0.2)
        assert said[place].item() == pytest.approx(exact, rel=1e-6)
    exact = truncnorm.mean(-np.inf, (-0.5 - mean.flatten()[4]) / 0.2, loc=mean.flatten()[4], scale=0.2)
    assert said[4].item() == pytest.approx(exact, rel=1e-6)
    assert said[3] == 0.3  # was not cut off
    assert 0.5 < said[0] < 0.51 and -0.51 < said[5] < -0.5  # as good as impossible: just beyond
    assert clipped.uncut.linear
    torch.testing.assert_close(clipped.uncut(mean), 2 * mean)
    half = Masked(torch.tensor([1, 1, 0, 1, 1, 0]).bool().view(1, 1, 6, 1))
    both = Both(clipped, half)
    torch.testing.assert_close(both.uncut(mean), 2 * mean * half.mask)
    beyond = clipped.expected(y, mean, spread)
    torch.testing.assert_close(both.expected(half(y), half(mean), spread), beyond * half.mask)
    linear = Both(Blur(gaussian_kernel(0.8)), half)
    assert linear.uncut.linear and linear.expected(y, mean, spread) is y


def test_what_a_clipped_measurement_says_is_said_on_either_side_of_zero() -> None:
    """True of the signal, and steep wherever a signal is not what was measured."""
    x, one = draw(1, 1, 12, 8), torch.ones(1, dtype=torch.float64)
    y = (2 * x).clamp(-1, 1)
    operator = Clipped.consistent(y, one, 2.0)
    torch.testing.assert_close(operator(x), y)
    wrong = (-3 * x).requires_grad_()
    (gradient,) = torch.autograd.grad((operator(wrong) - y).square().sum(), wrong)
    assert (gradient != 0).all()
