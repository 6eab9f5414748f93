import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from molflow.flow.lbfgs import Minimum, Objective, minimise

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def rosenbrock(z: Tensor, index: Tensor) -> Tensor:
    return (100 * (z[:, 1:] - z[:, :-1] ** 2) ** 2 + (1 - z[:, :-1]) ** 2).sum(1)


def mixture(z: Tensor, index: Tensor) -> Tensor:
    """Five kinds of problem in one batch, their scales ten orders of magnitude apart."""
    weights = torch.logspace(0, 3, z.shape[1], dtype=z.dtype)
    kinds = torch.stack(
        [
            rosenbrock(z, index),
            1e6 * (weights * (z - 1) ** 2).sum(1),
            1e-4 * (weights * (z + 2) ** 2).sum(1),
            (torch.cosh(z) + 0.1 * z).sum(1),
            ((z - 0.5) ** 4).sum(1),
        ]
    )
    return kinds.gather(0, (index % 5)[None])[0]


def quadratics(batch: int, size: int, condition: float, seed: int) -> tuple[Objective, Tensor]:
    """Random convex quadratics, one a sample, and where their minima (of value 3) lie."""
    Q = torch.linalg.qr(randn(batch, size, size, seed=seed)).Q
    H = Q @ torch.diag(torch.logspace(0, np.log10(condition), size, dtype=F64)) @ Q.mT
    centre = randn(batch, size, seed=seed + 1)

    def fun(z: Tensor, index: Tensor) -> Tensor:
        d = z - centre[index]
        return 0.5 * torch.einsum("bi,bij,bj->b", d, H[index], d) + 3

    return fun, centre


@given(st.integers(0, 10**6), st.sampled_from([1.0, 30.0, 1e3]))
@settings(max_examples=12, deadline=None)
def test_convex_quadratics_reach_their_known_minimum(seed: int, condition: float) -> None:
    fun, centre = quadratics(5, 8, condition, seed)
    out = minimise(fun, 3 * randn(5, 8, seed=seed + 2), max_evals=200, gtol=1e-7, ftol=0)
    torch.testing.assert_close(out.z, centre, rtol=0, atol=1e-6)
    torch.testing.assert_close(out.loss, torch.full((5,), 3.0, dtype=F64))


def test_rosenbrock() -> None:
    start = torch.tensor([[-1.2, 1.0], [3.0, -2.0], [0.0, 0.0], [1.0, 1.0]], dtype=F64)
    out = minimise(rosenbrock, start, max_evals=200, gtol=1e-8, ftol=0)
    torch.testing.assert_close(out.z, torch.ones(4, 2, dtype=F64), rtol=0, atol=1e-7)
    assert out.converged.all() and out.evals[3] == 1 and out.evals.max() < 80


def test_single_precision_gets_as_far_as_it_can() -> None:
    start = torch.tensor([[-1.2, 1.0], [3.0, -2.0]])
    out = minimise(rosenbrock, start, max_evals=200)
    assert out.z.dtype == torch.float32 and out.loss.max() < 1e-8


def smooth(z: Tensor, index: Tensor) -> Tensor:
    M = randn(15, z.shape[1], seed=7).to(z)
    return torch.logsumexp(z @ M.T + index[:, None] * 0.1, dim=1) + 0.05 * z.square().sum(1)


def test_agrees_with_scipy_and_is_as_frugal() -> None:
    start = 2 * randn(6, 10)
    ours = minimise(smooth, start, max_evals=200, gtol=1e-7, ftol=0)
    theirs_evals = 0
    for i in range(6):

        def scalar(x: np.ndarray, i: int = i) -> tuple[float, np.ndarray]:
            z = torch.tensor(x[None], requires_grad=True)
            value = smooth(z, torch.tensor([i])).sum()
            value.backward()
            assert z.grad is not None
            return value.item(), z.grad[0].numpy()

        options = {"maxcor": 10, "gtol": 1e-7, "ftol": 0}
        theirs = minimize(scalar, start[i].numpy(), jac=True, method="L-BFGS-B", options=options)
        theirs_evals += theirs.nfev
        np.testing.assert_allclose(ours.z[i].numpy(), theirs.x, atol=1e-6)
        assert abs(ours.loss[i].item() - theirs.fun) < 1e-11
    assert ours.converged.all()
    assert ours.evals.sum() < 1.3 * theirs_evals


def assert_same(batched: Minimum, alone: list[Minimum]) -> None:
    for i, one in enumerate(alone):
        torch.testing.assert_close(batched.z[i], one.z[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(batched.loss[i], one.loss[0], rtol=1e-9, atol=1e-12)
        assert batched.evals[i] == one.evals[0] and batched.converged[i] == one.converged[0]
        rounds = len(one.losses)
        torch.testing.assert_close(batched.losses[:rounds, i], one.losses[:, 0], rtol=1e-7, atol=1e-12)
        assert (batched.losses[rounds:, i] == batched.loss[i]).all()


def run_alone(fun: Objective, start: Tensor, **options: float) -> list[Minimum]:
    return [
        minimise(lambda z, j, i=i: fun(z, j + i), start[i : i + 1], max_evals=60, **options)
        for i in range(len(start))
    ]


@pytest.mark.parametrize("options", [{}, {"max_step": 0.3}, {"target": 0.01}, {"gtol": 1e-3}])
def test_a_batch_is_the_same_as_its_samples_alone(options: dict[str, float]) -> None:
    start = randn(10, 3)
    batched = minimise(mixture, start, max_evals=60, **options)
    assert_same(batched, run_alone(mixture, start, **options))
    assert len(set(batched.evals.tolist())) > 3


def test_ill_scaled_problems_in_one_batch_all_get_there() -> None:
    out = minimise(mixture, randn(10, 3), max_evals=200, gtol=1e-9, ftol=0)
    for i, place in [(0, 1.0), (1, 1.0), (2, -2.0), (3, -np.arcsinh(0.1))]:
        torch.testing.assert_close(out.z[i::5], torch.full((2, 3), place, dtype=F64), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.z[4::5], torch.full((2, 3), 0.5, dtype=F64), rtol=0, atol=5e-3)


def test_the_units_of_the_loss_do_not_matter() -> None:
    start = randn(4, 3)
    one = minimise(rosenbrock, start, max_evals=30, gtol=0, ftol=0)
    other = minimise(lambda z, i: 2.0**-20 * rosenbrock(z, i), start, max_evals=30, gtol=0, ftol=0)
    assert torch.equal(one.z, other.z) and torch.equal(one.evals, other.evals)


def barrier(z: Tensor, index: Tensor) -> Tensor:
    """sum z - log z: NaN for z < 0, +inf at 0, minimum at 1. Odd samples: a plain bowl."""
    walled = (z - torch.log(z)).sum(1)
    return torch.where(index % 2 == 0, walled, (z - 1).square().sum(1))


def test_regions_without_finite_loss_are_stepped_back_from_and_poison_no_one() -> None:
    start = torch.tensor([[0.01, 5.0], [4.0, 4.0], [30.0, 0.1], [-3.0, 0.5]], dtype=F64)
    nan_seen = False

    def fun(z: Tensor, index: Tensor) -> Tensor:
        nonlocal nan_seen
        loss = barrier(z, index)
        nan_seen = nan_seen or bool(loss.isnan().any())
        return loss

    out = minimise(fun, start, max_evals=100, gtol=1e-8, ftol=0)
    assert nan_seen, "the test must meet the wall"
    torch.testing.assert_close(out.z, torch.ones(4, 2, dtype=F64), rtol=0, atol=1e-6)
    assert_same(minimise(barrier, start, max_evals=60), run_alone(barrier, start))


def test_points_without_finite_gradient_are_never_stepped_to() -> None:
    seen: list[Tensor] = []

    def fun(z: Tensor, index: Tensor) -> Tensor:
        """z, with the gradient NaN where z <= 0 though the value is finite and lower."""
        seen.append(z.detach().clone())
        return (z + 0 * torch.where(z > 0, 1.0, 0 * z).sqrt()).sum(1)

    out = minimise(fun, torch.full((1, 1), 0.5, dtype=F64), max_evals=60)
    points = torch.cat(seen)
    assert points.isfinite().all() and (points < 0).any() and (points[1:] > 0).any()
    assert out.loss[0] == out.z[0, 0] == points.min()


def test_minus_infinity_is_a_failure_too() -> None:
    # log|z| falls to -inf at 0, which the first step, of length 1, hits exactly.
    seen: list[Tensor] = []

    def fun(z: Tensor, index: Tensor) -> Tensor:
        seen.append(z[:, 0].detach().clone())
        return z.abs().log().sum(1)

    out = minimise(fun, torch.ones(1, 1, dtype=F64), max_evals=10, target=-1e9)
    assert seen[1].item() == 0
    assert out.loss.isfinite().all() and not out.converged.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_bad_start_with_zero_gradient_has_not_converged(value: float) -> None:
    out = minimise(lambda z, i: (0 * z).sum(1) + value, randn(2, 3), max_evals=5)
    assert not out.converged.any() and out.evals.tolist() == [1, 1]


def test_a_start_without_finite_loss_stops_at_once_and_alone() -> None:
    start = torch.tensor([[-1.0, 1.0], [4.0, 4.0]], dtype=F64)
    out = minimise(barrier, start, max_evals=50)
    assert out.evals[0] == 1 and not out.converged[0] and out.loss[0].isnan()
    assert torch.equal(out.z[0], start[0])
    assert out.converged[1] and out.loss[1] < 1e-9


@given(st.integers(0, 10**6), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_the_best_point_seen_comes_with_its_own_loss(seed: int, max_evals: int) -> None:
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def fun(z: Tensor, index: Tensor) -> Tensor:
        loss = mixture(torch.sin(3 * z) + z, index)
        seen.append((index, z.detach().clone(), loss.detach()))
        return loss

    out = minimise(fun, 2 * randn(5, 3, seed=seed), max_evals=max_evals)
    losses, points = [[] for _ in range(5)], [[] for _ in range(5)]
    for index, z, loss in seen:
        for i, point, value in zip(index.tolist(), z, loss, strict=True):
            losses[i].append(value)
            points[i].append(point)
    for i in range(5):
        values = torch.stack(losses[i])
        assert out.loss[i] == values.min()
        assert torch.equal(out.z[i], points[i][int(values.argmin())])
        assert out.evals[i] == len(values) <= max_evals
        assert torch.equal(out.losses[: len(values), i], values.cummin(0).values)
    assert torch.equal(out.losses[-1], out.loss)


def test_stopped_samples_are_not_evaluated_again() -> None:
    calls = torch.zeros(10, dtype=torch.int64)
    sizes = []

    def fun(z: Tensor, index: Tensor) -> Tensor:
        calls.index_add_(0, index, torch.ones_like(index))
        sizes.append(len(index))
        return mixture(z, index)

    out = minimise(fun, randn(10, 3), max_evals=100)
    assert torch.equal(calls, out.evals)
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 10
    assert len(sizes) == len(out.losses) == out.evals.max()


def test_target_stops_each_sample_as_soon_as_it_is_reached() -> None:
    fun, centre = quadratics(3, 4, 10.0, 0)
    start = centre + torch.tensor([[0.01], [1.0], [5.0]], dtype=F64)
    out = minimise(fun, start, max_evals=100, target=3.1)
    assert out.converged.all() and (out.loss <= 3.1).all()
    assert out.evals[0] == 1 and out.evals[2] > 2
    assert (out.losses[out.evals - 2, torch.arange(3)][1:] > 3.1).all()


def test_max_evals_is_kept_and_is_no_convergence() -> None:
    out = minimise(rosenbrock, 3 * randn(4, 6), max_evals=7)
    assert out.evals.tolist() == [7] * 4 and not out.converged.any() and out.losses.shape == (7, 4)
    assert minimise(rosenbrock, randn(4, 6), max_evals=1).evals.tolist() == [1] * 4


def test_no_step_is_longer_than_max_step() -> None:
    slope = randn(3, 5)
    start = randn(3, 5, seed=1)
    out = minimise(lambda z, i: (slope[i] * z).sum(1), start, max_evals=9, max_step=0.25)
    # Downhill for ever: every step has the full length, straight along -slope.
    travelled = -8 * 0.25 * slope / slope.norm(dim=1, keepdim=True)
    torch.testing.assert_close(out.z - start, travelled)


def test_a_search_that_fails_stops_its_sample_and_keeps_the_start() -> None:
    def lying(z: Tensor, index: Tensor) -> Tensor:
        """Sample 0: value z^2 with the gradient of -z^2."""
        value = z.square().sum(1)
        return torch.where(index == 0, 2 * value.detach() - value, value)

    start = randn(2, 3)
    out = minimise(lying, start, max_evals=100)
    assert torch.equal(out.z[0], start[0]) and not out.converged[0] and out.evals[0] < 30
    assert out.converged[1] and out.loss[1] < 1e-10


def test_a_kink_restarts_along_steepest_descent_and_then_gives_up() -> None:
    out = minimise(lambda z, i: z.abs().sum(1) + 0.1 * z.square().sum(1), randn(4, 2), max_evals=400)
    assert (out.evals < 400).all() and (out.loss < 0.2).all()


def test_flat_losses_are_done_at_once() -> None:
    out = minimise(lambda z, i: 0 * z.sum(1) + 5, randn(2, 3), max_evals=10)
    assert out.converged.all() and out.evals.tolist() == [1, 1]


def test_works_under_no_grad_and_leaves_no_graph() -> None:
    with torch.no_grad():
        out = minimise(rosenbrock, randn(2, 2).requires_grad_(), max_evals=5)
    assert not out.z.requires_grad and not out.loss.requires_grad


@pytest.mark.parametrize("bad", [{"max_evals": 0}, {"history": 0}, {"z0": torch.zeros(3)}])
def test_senseless_arguments_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        minimise(rosenbrock, **{"z0": randn(2, 2), "max_evals": 5, **bad})
