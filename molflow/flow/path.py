"""The Gaussian conditional optimal-transport path x_t = (1 - t) x_0 + t x_1 (Lipman et al. 2023, sec. 4.1).

Noise x_0 ~ N(0, 1) at t = 0, data x_1 at t = 1; sigma_min = 0. Every t is (B,) or a scalar.
"""

from __future__ import annotations

from torch import Tensor

from molflow.flow.state import State, per_sample


def interpolate(x0: State, x1: State, t: Tensor) -> State:
    """x_t = (1 - t) x_0 + t x_1 for every modality (Lipman et al. 2023, eq. 22 with sigma_min = 0)."""
    return {key: noise + per_sample(t, noise) * (x1[key] - noise) for key, noise in x0.items()}


def conditional_velocity(x0: State, x1: State) -> State:
    """d x_t / d t = x_1 - x_0, the same at all times (Lipman et al. 2023, eq. 23 with sigma_min = 0)."""
    return {key: x1[key] - noise for key, noise in x0.items()}


def endpoint_to_velocity(endpoint: State, x: State, t: Tensor, eps: float = 1e-3) -> State:
    """u = (E[x_1 | x_t] - x_t) / (1 - t), the marginal velocity that belongs to an endpoint prediction.

    1 - t is not let below `eps`: at t = 1 the quotient is 0/0, and a network's endpoint differs from x by its
    own error, which the division would blow up. An Euler or midpoint step never evaluates at t = 1; Heun's
    and Runge-Kutta's last stage, and every integration backward from t = 1, do, and multiply that error by
    step / eps there. End (or start) such grids at 1 - eps or earlier.

    Args:
        endpoint: predicted data {key: (B, ...)}.
        x: state at time t, same shapes.
        t: (B,) or a scalar.
        eps: smallest 1 - t that is divided by.
    """
    left = (1 - t).clamp(min=eps)
    return {key: (endpoint[key] - value) / per_sample(left, value) for key, value in x.items()}


def velocity_to_endpoint(velocity: State, x: State, t: Tensor) -> State:
    """E[x_1 | x_t] = x_t + (1 - t) u, the inverse of `endpoint_to_velocity` wherever 1 - t >= eps."""
    return {key: value + per_sample(1 - t, value) * velocity[key] for key, value in x.items()}
