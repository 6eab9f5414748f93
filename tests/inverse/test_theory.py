"""Why the source: on a Gaussian mixture, whose flow is known, the gradient there is the data's, times the flow's
Jacobian, which keeps the directions in which the data varies and shrinks those in which it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import source_gradient
from benchmarks.inverse.mixture import EYE, FLOW, posterior, sources
from benchmarks.record import execute


def test_the_velocitys_jacobian_is_the_posteriors_covariance() -> None:
    """D u = (t / (1 - t)² Var[x_1 | x_t] - 1) / (1 - t) (Ben-Hamu et al. 2024, sec. 4)."""
    t = torch.linspace(0.05, 0.9, 30, dtype=torch.float64)
    x = sources(30) * 2
    slope = torch.stack([torch.func.jacrev(lambda y, s=s: posterior(s[None], y[None])[2][0])(y)
                         for s, y in zip(t, x, strict=True)])
    mean, variance, velocity = posterior(t, x)
    left = (1 - t)[:, None, None]
    torch.testing.assert_close(slope, (t[:, None, None] / left**2 * variance - EYE) / left)
    torch.testing.assert_close(velocity, (mean - x) / left[..., 0])


def test_the_gradient_at_the_source_is_the_datas_times_the_jacobian() -> None:
    """J from its own differential equation, dJ/dt = D u J, by the midpoint rule beside that of x; D u is the
    posterior's covariance, no network's derivative."""
    x0, steps = sources(4), 200
    wanted = torch.tensor([0.3, -1.0], dtype=torch.float64)
    start = x0.clone().requires_grad_()
    end = FLOW.flow(steps, "rk4", gradients=True)({"x": start}, torch.arange(4))["x"]
    (gradient,) = torch.autograd.grad((end - wanted).square().sum(), start)

    def slope(t: float, x: Tensor) -> Tensor:
        _, variance, _ = posterior(torch.full((len(x),), t, dtype=torch.float64), x)
        return (t / (1 - t) ** 2 * variance - EYE) / (1 - t)

    x, jacobian, h = x0, EYE.expand(4, 2, 2), 1 / steps
    for step in range(steps):
        t = step * h
        first, second = (torch.full((4,), time, dtype=torch.float64) for time in (t, t + h / 2))
        k1 = posterior(first, x)[2]
        k2 = posterior(second, x + h / 2 * k1)[2]
        middle = x + h / 2 * k1
        jacobian = jacobian + h * slope(t + h / 2, middle) @ (jacobian + h / 2 * slope(t, x) @ jacobian)
        x = x + h * k2
    torch.testing.assert_close(x, end.detach(), rtol=1e-3, atol=1e-3)
    exact = (jacobian.mT @ (2 * (x - wanted))[..., None])[..., 0]
    torch.testing.assert_close(gradient, exact, rtol=2e-2, atol=2e-2)


def test_what_arrives_in_data_space_points_along_the_data(tmp_path: Path) -> None:
    """A step down the gradient at the source moves the endpoint by -J J' g: along the component, not across it."""
    found = execute("source-gradient", source_gradient, tmp_path, {"n": 200})["results"]
    before, after = found["before"], found["after"]
    assert before[1] < 0.8 and after[1] > 0.99
    assert after[0] == pytest.approx(1, abs=0.2)
    assert found["stretch"][0] > 10 * found["stretch"][1]
    assert (tmp_path / "source-gradient.arrows.png").read_bytes().startswith(b"\x89PNG")
