"""A flow of one's own, as somebody outside brings it: a velocity and a shape, to restore signals with."""

from __future__ import annotations

import pytest
import torch

from molflow.adapters import Adapter, plain
from molflow.inverse.operators import Masked, Shrink
from molflow.inverse.posterior import Averaging, average
from molflow.inverse.solve import Recipe, restore

N, MEAN, NOISE = 24, 0.2, 0.05
PLACES = torch.arange(N, dtype=torch.float64)
COVARIANCE = 0.25 * torch.exp(-(PLACES[:, None] - PLACES).abs() / 6) + 1e-3 * torch.eye(N, dtype=torch.float64)
VALUES, VECTORS = torch.linalg.eigh(COVARIANCE)


def velocity(t, x):
    """E[x_1 - x_0 | x_t = x] of a Gaussian process, each direction of the covariance for itself."""
    t = t[:, None, None]
    gain = (t * VALUES - (1 - t)) / (t**2 * VALUES + (1 - t) ** 2)
    return MEAN + (gain * ((x - t * MEAN) @ VECTORS)) @ VECTORS.T


FLOW = Adapter(plain(velocity), (1, N), dtype=torch.float64)


def posterior_mean(operator, y):
    """In closed form, by the matrix of the operator."""
    a = operator(torch.eye(N, dtype=torch.float64)[:, None])[:, 0].T
    inside = a @ COVARIANCE @ a.T + NOISE**2 * torch.eye(len(a), dtype=torch.float64)
    return MEAN + (torch.linalg.solve(inside, (y[:, 0] - MEAN * a.sum(1)).T).T @ (a @ COVARIANCE))[:, None]


KNOWN = (PLACES < 8) | (PLACES > 15)
OPERATORS = pytest.mark.parametrize("operator", [Masked(KNOWN[None, None]), Shrink(3)], ids=["gap", "shrunk"])


def measured(operator, count):
    clean = FLOW.sample(count, seed=1, steps=40)
    y = operator(clean)
    return y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def rms(x):
    return float(x.square().mean().sqrt())


def test_its_samples_have_the_mean_and_the_covariance():
    drawn = FLOW.sample(2000, seed=5, steps=40)[:, 0]
    torch.testing.assert_close(drawn.mean(0), torch.full((N,), MEAN, dtype=torch.float64), rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(drawn.T), COVARIANCE, rtol=0, atol=0.04)


@OPERATORS
def test_the_average_is_the_exact_posterior_mean(operator):
    y = measured(operator, 4)
    found = average(FLOW, operator, y, noise=NOISE, recipe=Averaging(solves=24)).signal
    torch.testing.assert_close(found, posterior_mean(operator, y), rtol=0, atol=5e-3)


@OPERATORS
def test_what_d_flow_finds_lies_about_the_exact_posterior_mean(operator):
    """One of the signals that may have been measured, not their mean: another one from another start."""
    y = measured(operator, 1)
    exact = posterior_mean(operator, y)
    found = restore(FLOW, operator, y.repeat(64, 1, 1), noise=NOISE, recipe=Recipe(steps=8, evals=80))
    assert (found.misfit < 1.5 * NOISE).all()
    off = found.signal - exact
    assert rms(off.mean(0)) < 0.4 * rms(off)
    assert rms(off.mean(0)) < 0.3 * rms(found.start[:1] - exact)
