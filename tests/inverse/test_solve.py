"""The whole line on flows whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from molflow.adapters import Adapter
from molflow.adapters.adapter import plain
from molflow.inverse.operators import Blur, Clipped, Identity, Masked, Operator, Shrink, gaussian_kernel
from molflow.inverse.solve import Recipe, chi_penalty, restore

STD = 0.5
ONES = torch.ones(1, 1, 1, 1)


def gaussian_flow(*shape: int) -> Adapter:
    """u(t, x) of data N(0, STD²), whose flow is x(1) = STD x(0); in float64."""
    def velocity(t: Tensor, x: Tensor) -> Tensor:
        t = t.view(-1, *[1] * (x.dim() - 1))
        return (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2) * x

    return Adapter(plain(velocity), shape, dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_penalty_is_the_chi_distributions() -> None:
    from scipy.stats import chi

    source = draw(5, 1, 4, 3) * torch.tensor([0.1, 0.5, 1, 2, 5], dtype=torch.float64).view(-1, 1, 1, 1)
    norms = source.flatten(1).norm(dim=1).numpy()
    exact = chi.logpdf(math.sqrt(11), 12) - chi.logpdf(norms, 12)
    torch.testing.assert_close(chi_penalty(source), torch.from_numpy(exact))


def test_denoising_finds_the_most_likely_source() -> None:
    """Along y, at the length that a search along that line finds."""
    noise, steps = 0.2, 40
    adapter, y = gaussian_flow(1, 4, 4), draw(3, 1, 4, 4) * STD
    found = restore(adapter, Identity(), y, noise=noise, recipe=Recipe(steps=steps, evals=200))
    with torch.no_grad():
        ones = {"x": torch.ones(1, 1, 4, 4, dtype=torch.float64)}
        scale = adapter.flow(steps)(ones, torch.arange(1))["x"].mean().item()
    assert scale == pytest.approx(STD, rel=1e-2)
    for row in range(3):
        size = y[row].norm().item()
        best = minimize_scalar(lambda r, size=size: (scale * r - size) ** 2 / (2 * noise**2) + r**2 / 2
                               - 15 * math.log(r), bounds=(1e-3, 20), method="bounded", options={"xatol": 1e-10}).x
        torch.testing.assert_close(found.signal[row], scale * best / size * y[row], rtol=1e-3, atol=1e-3)
    assert found.result.nfe.tolist() == (found.result.evals * 3 * 2 * steps).tolist()


@pytest.mark.parametrize("norm", ["chi", "shell"])
@pytest.mark.parametrize("operator", [
    Masked(draw(2, 1, 8, 8) > 0), Shrink(2), Blur(gaussian_kernel(0.8)), Clipped(-ONES, ONES, 2.0),
], ids=lambda x: type(x).__name__)
def test_every_operator_is_fitted_by_what_is_found(operator: Operator, norm: str) -> None:
    adapter, clean = gaussian_flow(1, 8, 8), draw(2, 1, 8, 8, seed=4) * STD
    y = operator(clean)
    if isinstance(operator, Clipped):
        operator = Clipped.consistent(y, ONES, 2.0)
    found = restore(adapter, operator, y, noise=0.0, recipe=Recipe(evals=150, norm=norm))  # type: ignore[arg-type]
    assert (found.misfit < (0.02 if norm == "chi" else 0.05)).all(), found.misfit
    assert found.signal.shape == clean.shape == found.start.shape
    torch.testing.assert_close((operator(found.signal) - y).square().mean((1, 2, 3)).sqrt(), found.misfit)


def test_each_problem_is_solved_as_if_it_were_alone() -> None:
    adapter, mask = gaussian_flow(1, 8, 8), draw(2, 1, 8, 8) > 0
    y = draw(2, 1, 8, 8, seed=1) * STD * mask
    recipe = Recipe(evals=60, blend=1.0)  # no noise in the start, which would be another one
    both = restore(adapter, Masked(mask), y, noise=0.1, recipe=recipe)
    alone = restore(adapter, Masked(mask[1:]), y[1:], noise=0.1, recipe=recipe)
    torch.testing.assert_close(both.signal[1:], alone.signal)
    assert both.result.evals[1] == alone.result.evals[0]
