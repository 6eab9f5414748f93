"""Why the source: on a Gaussian mixture, whose flow is known, the gradient there is the data's, times the flow's
Jacobian, which keeps the directions in which the data varies and shrinks those in which it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from molflow.adapters import Adapter
from molflow.adapters.adapter import plain

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-1.0, -2.0]], dtype=torch.float64)
LONG, SHORT = 0.8, 0.05
"""Standard deviations along and across each component's own direction."""
DIRECTIONS = torch.nn.functional.normalize(torch.tensor([[1.0, 1.0], [1.0, -0.5], [0.0, 1.0]], dtype=torch.float64))
EYE = torch.eye(2, dtype=torch.float64)
COVARIANCES = SHORT**2 * EYE + (LONG**2 - SHORT**2) * DIRECTIONS[:, :, None] * DIRECTIONS[:, None]


def posterior(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E[x_1 | x_t] (B, 2), Var[x_1 | x_t] (B, 2, 2) and E[x_1 - x_0 | x_t], t (B,), x (B, 2): Gaussian by Gaussian."""
    t = t[:, None, None, None]
    spread = t**2 * COVARIANCES + (1 - t) ** 2 * EYE  # (B, 3, 2, 2), of x_t in each component
    off = x[:, None] - t[..., 0] * MEANS
    solved = torch.linalg.solve(spread, off)
    log = WEIGHTS.log() - torch.logdet(spread) / 2 - (off * solved).sum(-1) / 2
    share = log.softmax(1)
    gain = t * COVARIANCES @ torch.linalg.inv(spread)
    means = MEANS + (gain @ off[..., None])[..., 0]
    mean = (share[..., None] * means).sum(1)
    apart = means - mean[:, None]
    within = COVARIANCES - gain @ (t * COVARIANCES)
    variance = (share[..., None, None] * (within + apart[..., :, None] * apart[..., None, :])).sum(1)
    drift = MEANS + ((t * COVARIANCES - (1 - t) * EYE) @ solved[..., None])[..., 0]
    return mean, variance, (share[..., None] * drift).sum(1)


FLOW = Adapter(plain(lambda t, x: posterior(t, x)[2]), (2,), dtype=torch.float64)


def sources(count: int) -> Tensor:
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def jacobians(x0: Tensor, steps: int = 200) -> Tensor:
    """(B, 2, 2) of the flow, one row of the output at a time."""
    x0 = x0.clone().requires_grad_()
    end = FLOW.flow(steps, "rk4")({"x": x0}, torch.arange(len(x0)))["x"]
    return torch.stack([torch.autograd.grad(end[:, row].sum(), x0, retain_graph=True)[0] for row in (0, 1)], 1)


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


def test_what_arrives_in_data_space_points_along_the_data() -> None:
    """A step down the gradient at the source moves the endpoint by -J J' g: along the component, not across it."""
    x0 = sources(200)
    with torch.no_grad():
        end = FLOW.flow(200, "rk4")({"x": x0}, torch.arange(200))["x"]
    distance = ((end[:, None] - MEANS)[..., None, :] @ torch.linalg.inv(COVARIANCES)
                @ (end[:, None] - MEANS)[..., None])[..., 0, 0]
    nearest = DIRECTIONS[distance.argmin(1)]
    jacobian = jacobians(x0)
    push = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = (jacobian @ jacobian.mT @ push[..., None])[..., 0]
    moved = moved / moved.norm(dim=1, keepdim=True)
    push = push / push.norm(dim=1, keepdim=True)
    before, after = ((x * nearest).sum(1).abs() for x in (push, moved))
    assert before.median() < 0.8 and after.median() > 0.99
    assert after.quantile(0.1).item() == pytest.approx(1, abs=0.2)
