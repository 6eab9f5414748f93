"""Draws from a posterior that is known, and recordings of mean level."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from molflow.adapters import Adapter
from molflow.adapters.adapter import plain
from molflow.inverse.hearing import FRAME, HOP, Listening, draw, listen, mean_level
from molflow.inverse.operators import Masked

LENGTH = 16
STEP = torch.arange(LENGTH, dtype=torch.float64)
COVARIANCE = 0.5 * torch.exp(-0.3 * (STEP[:, None] - STEP).abs())
"""Of an autoregressive process."""


def process() -> Adapter:
    """u(t, x) of data N(0, COVARIANCE), in closed form: E[x_1 - x_0 | x_t]."""
    eye = torch.eye(LENGTH, dtype=torch.float64)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        now = t[0]
        gain = (now * COVARIANCE - (1 - now) * eye) @ torch.linalg.inv(now**2 * COVARIANCE + (1 - now) ** 2 * eye)
        return x @ gain.T

    return Adapter(plain(velocity), (1, LENGTH), dtype=torch.float64)


def test_draws_are_distributed_as_all_that_would_be_measured_so() -> None:
    known = torch.zeros(1, 1, LENGTH, dtype=torch.bool)
    known[..., :5] = known[..., 11:] = True
    noise, count = 0.1, 4000
    rng = torch.Generator().manual_seed(0)
    clean = torch.linalg.cholesky(COVARIANCE) @ torch.randn(LENGTH, dtype=torch.float64, generator=rng)
    y = (clean + noise * torch.randn(LENGTH, dtype=torch.float64, generator=rng)).view(1, 1, -1) * known
    seen = known[0, 0]
    inverse = torch.linalg.inv(COVARIANCE[seen][:, seen] + noise**2 * torch.eye(10))
    mean = COVARIANCE[:, seen] @ inverse @ y[0, 0, seen]
    covariance = COVARIANCE - COVARIANCE[:, seen] @ inverse @ COVARIANCE[seen]

    many = y.expand(count, 1, -1)
    way = draw(process(), Masked(known), many, torch.full((count,), noise**2).double(), many, rng,
               Listening(steps=100, begin=0.01, end=0.999, solves=LENGTH))
    drawn = way[-1][:, 0]
    assert len(way) == 100
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(drawn.T), covariance, rtol=0, atol=0.04)
    assert covariance[8, 8] > 0.2 and drawn[:, 8].var() > 0.16  # in the gap they do differ


def levels(x: Tensor) -> Tensor:
    window = torch.hann_window(FRAME)
    spectrum = torch.stft(x.flatten(0, -2), FRAME, HOP, window=window, normalized=True, return_complex=True)
    return 10 * (spectrum.abs().square() + 1e-9).log10()


def test_mean_level_is_nearer_to_another_draw_than_any_draw_or_their_mean() -> None:
    noise = 0.05 * torch.randn(9, 4, 1, 4096, generator=torch.Generator().manual_seed(0))
    draws, other = noise[:8], noise[8]

    def apart(x: Tensor) -> float:
        return (levels(x) - levels(other)).square().mean().sqrt().item()

    found = apart(mean_level(draws))
    assert found < 0.9 * min(map(apart, (*draws, draws.mean(0))))
    # the level of a bin of noise, whose power is exponentially distributed, is spread by 5.57 dB; mean levels of eight
    # by 5.57 / sqrt(8) more: what no estimate can avoid, and little above it for phases that fit no recording
    assert found < 1.15 * math.hypot(5.57, 5.57 / math.sqrt(8))


@pytest.mark.parametrize("length", [64, 4096])
def test_what_all_draws_have_in_common_stays_as_it_is(length: int) -> None:
    one = 0.1 * torch.randn(2, 1, length, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mean_level(one.expand(3, *one.shape)), one, rtol=0, atol=1e-4)


def test_a_measurement_is_heeded_and_a_seed_repeats() -> None:
    known = torch.arange(LENGTH) % 3 > 0
    y = torch.randn(2, 1, LENGTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * known
    recipe = Listening(draws=3, steps=6, solves=1)
    found, again, other = (listen(process(), Masked(known.view(1, 1, -1)), y, noise=0.01, seed=seed, recipe=recipe)
                           for seed in (0, 0, 1))
    assert found.nfe == 3 * 6 * 3 and len(found.path) == 6 and torch.equal(found.path[-1], found.signal)
    assert (found.misfit < 0.02).all()
    assert torch.equal(found.signal, again.signal) and not torch.equal(found.signal, other.signal)
