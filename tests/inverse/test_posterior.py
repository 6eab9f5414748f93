"""The posterior mean where it is known: of Gaussian data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm
from torch import Tensor

from molflow.adapters import Adapter
from molflow.adapters.adapter import plain
from molflow.inverse.operators import (
    Blur,
    Clipped,
    Identity,
    Masked,
    Operator,
    Shrink,
    gaussian_kernel,
)
from molflow.inverse.posterior import Averaging, average

SIZE = 8
ONES = torch.ones(1, 1, 1, 1)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


FACTOR = draw(SIZE**2, SIZE**2, seed=9) / SIZE * 0.4
COVARIANCE = FACTOR @ FACTOR.T + 0.01 * torch.eye(SIZE**2, dtype=torch.float64)
MEAN = 0.3 * draw(SIZE**2, seed=8)


def correlated(covariance: Tensor = COVARIANCE) -> Adapter:
    """u(t, x) of data N(MEAN, covariance), in closed form: E[x_1 - x_0 | x_t]."""
    eye = torch.eye(SIZE**2, dtype=torch.float64)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        now = t[0]
        spread = now**2 * covariance + (1 - now) ** 2 * eye
        gain = (now * covariance - (1 - now) * eye) @ torch.linalg.inv(spread)
        return (MEAN + (x.flatten(1) - now * MEAN) @ gain.T).view_as(x)

    return Adapter(plain(velocity), (1, SIZE, SIZE), dtype=torch.float64)


def data(count: int) -> Tensor:
    root = torch.linalg.cholesky(COVARIANCE)
    return (MEAN + draw(count, SIZE**2, seed=3) @ root.T).view(-1, 1, SIZE, SIZE)


def exact(operator: Operator, y: Tensor, noise: float) -> Tensor:
    """MEAN + C A' (A C A' + noise²)⁻¹ (y - A MEAN), with A as a matrix."""
    columns = torch.eye(SIZE**2, dtype=torch.float64).view(-1, 1, SIZE, SIZE)
    a = operator(columns).flatten(1).T
    inside = a @ COVARIANCE @ a.T + noise**2 * torch.eye(len(a), dtype=torch.float64)
    off = y.flatten(1) - MEAN @ a.T
    return (MEAN + torch.linalg.solve(inside, off.T).T @ a @ COVARIANCE).view(-1, 1, SIZE, SIZE)


@pytest.mark.parametrize("operator", [Masked(draw(1, 1, SIZE, SIZE) > 0), Shrink(2), Blur(gaussian_kernel(0.8)),
                                      Identity()], ids=lambda x: type(x).__name__)
def test_of_gaussian_data_the_mean_is_exact(operator: Operator) -> None:
    """Pairs of opposite noises cancel, and what is left of the start shrinks at every time."""
    clean, noise = data(3), 0.1
    y = operator(clean) + noise * draw(*operator(clean).shape, seed=4)
    recipe = Averaging(solves=40)
    found = average(correlated(), operator, y, noise=noise, recipe=recipe)
    torch.testing.assert_close(found.signal, exact(operator, y, noise), rtol=0, atol=2e-3)
    torch.testing.assert_close(found.misfit, (operator(found.signal) - y).square().mean((1, 2, 3)).sqrt())
    assert found.nfe == (recipe.steps + 1) * recipe.draws * (1 + 2 * 40)


def test_a_few_solves_come_near() -> None:
    clean, noise, operator = data(3), 0.1, Masked(draw(1, 1, SIZE, SIZE) > 0)
    y = operator(clean + noise * draw(*clean.shape, seed=4))
    wanted = exact(operator, y, noise)
    errors = [(average(correlated(), operator, y, noise=noise, recipe=Averaging(solves=solves)).signal
               - wanted).square().mean().sqrt() for solves in (0, 2, 6)]
    assert errors[2] < errors[1] / 2 < errors[0] / 4


def test_what_is_clipped_is_fitted_and_guessed_where_it_was_cut_off() -> None:
    clean = data(4)
    y = (2 * clean).clamp(-1, 1)
    operator = Clipped.consistent(y, ONES, 2.0)
    found = average(correlated(), operator, y, noise=0.01, recipe=Averaging(solves=20))
    assert (found.misfit < 0.05).all()
    assert (found.signal - clean).square().mean() < (y / 2 - clean).square().mean() / 2


def test_what_was_cut_off_is_expected_beyond_the_limit() -> None:
    """Of independent data in closed form: a truncated Gaussian's mean, which lies well beyond."""
    spread, limit = 0.5, 0.2
    clean = (MEAN + spread * draw(4, SIZE**2, seed=3)).view(-1, 1, SIZE, SIZE)
    y = clean.clamp(-limit, limit)
    found = average(correlated(spread**2 * torch.eye(SIZE**2, dtype=torch.float64)),
                    Clipped.consistent(y, limit * ONES), y, noise=0.01, recipe=Averaging(draws=8, solves=4)).signal
    mean = MEAN.view(1, SIZE, SIZE).expand_as(clean)
    bounds = [((side - mean) / spread).numpy() for side in (limit, -limit)]
    above = truncnorm.mean(bounds[0], np.inf, loc=mean.numpy(), scale=spread)
    below = truncnorm.mean(-np.inf, bounds[1], loc=mean.numpy(), scale=spread)
    for cut, exact_mean in ((y >= limit, above), (y <= -limit, below)):
        wanted = torch.from_numpy(exact_mean)[cut]
        off = (found[cut] - wanted).abs().mean()
        assert off < 0.3 * (wanted.abs() - limit).mean()  # taken for linear it would stay at the limit: 1
    torch.testing.assert_close(found[y.abs() < limit], y[y.abs() < limit], rtol=0, atol=0.03)


def test_each_problem_has_its_own_operator() -> None:
    """Two at once are as each alone but for the noises, which leave nothing behind."""
    clean, mask = data(2), draw(2, 1, SIZE, SIZE, seed=5) > 0
    both = average(correlated(), Masked(mask), clean * mask, noise=0.1, recipe=Averaging(solves=40))
    for row in range(2):
        alone = exact(Masked(mask[row: row + 1]), (clean * mask)[row: row + 1], 0.1)
        torch.testing.assert_close(both.signal[row: row + 1], alone, rtol=0, atol=2e-3)


@pytest.mark.parametrize("draws", [0, 3])
def test_noises_come_in_pairs(draws: int) -> None:
    with pytest.raises(ValueError, match="even"):
        average(correlated(), Identity(), data(1), noise=0.1, recipe=Averaging(draws=draws))


def test_faint_noise_is_heeded_however_few_the_steps() -> None:
    """One step of conjugate gradients at each time leaves a misfit of a few times the noise; it does not stay."""
    clean, noise = data(4), 1e-3
    for operator in (Masked(draw(1, 1, SIZE, SIZE) > 0), Shrink(2), Blur(gaussian_kernel(0.5))):
        y = operator(clean) + noise * draw(*operator(clean).shape, seed=6)
        y = operator(y) if isinstance(operator, Masked) else y
        found = average(correlated(), operator, y, noise=noise, recipe=Averaging(solves=1))
        assert (found.misfit < 2 * noise).all()
        before = found.path[-2]
        assert ((operator(before) - y).square().mean((1, 2, 3)).sqrt() > 2 * found.misfit).all()
        assert (found.signal - clean).square().mean() < (before - clean).square().mean()
