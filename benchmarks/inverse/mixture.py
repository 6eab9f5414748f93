"""A mixture of long, thin Gaussians in the plane, whose flow is known in closed form."""

from __future__ import annotations

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


def sources(count: int, seed: int = 0) -> Tensor:
    """(count, 2) Gaussian draws."""
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ends(x0: Tensor, steps: int = 200) -> tuple[Tensor, Tensor]:
    """Endpoints (B, 2) of the flow and its Jacobians there (B, 2, 2), one row of the output at a time."""
    x0 = x0.clone().requires_grad_()
    end = FLOW.flow(steps, "rk4")({"x": x0}, torch.arange(len(x0)))["x"]
    rows = [torch.autograd.grad(end[:, row].sum(), x0, retain_graph=True)[0] for row in (0, 1)]
    return end.detach(), torch.stack(rows, 1)


def component(end: Tensor) -> Tensor:
    """(B,) the nearest component, in its own standard deviations."""
    off = (end[:, None] - MEANS)[..., None]
    return (off.mT @ torch.linalg.inv(COVARIANCES) @ off)[..., 0, 0].argmin(1)


def density(x: Tensor) -> Tensor:
    """(B,) of the mixture at x (B, 2)."""
    parts = torch.distributions.MultivariateNormal(MEANS, COVARIANCES)
    return (WEIGHTS * parts.log_prob(x[:, None]).exp()).sum(1)
