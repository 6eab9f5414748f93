"""Diffusion models as flows: an exact change of variables, not an approximation.

A variance-preserving diffusion has z = a x_1 + b noise with a² + b² = 1. Divided by a + b that is the flow's path
x_t = t x_1 + (1 - t) noise with t = a / (a + b), so that sigma = b / a = (1 - t) / t (Lipman et al. 2023,
arXiv 2210.02747, sec. 4.1; Gao et al. 2024, "Diffusion meets flow matching"). Its probability-flow ODE in flow time is
dx/dt = E[x_1 - noise | x_t]; Euler's method on it is DDIM (Song et al. 2021, arXiv 2010.02502) without noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from molflow.adapters.adapter import plain
from molflow.flow.path import endpoint_to_velocity
from molflow.flow.solvers import VelocityField
from molflow.flow.state import per_sample

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""What a model says of z: the noise, a noise - b x_1, or x_1; named as diffusers does."""


@dataclass(frozen=True)
class NoiseTable:
    """The numbers of a discrete schedule's noise levels, and what lies between them by interpolation in log sigma.

    Attributes:
        alphas: (N,) a² at the numbers 0, ..., N - 1, falling; diffusers' ``alphas_cumprod``.
    """

    alphas: Tensor

    def __call__(self, sigma: Tensor) -> Tensor:
        """(B,) noise levels -> (B,) numbers, not whole in general; beyond the table those of its ends."""
        levels = self._log_sigmas.to(sigma.device)
        log = sigma.double().clamp_min(1e-12).log().clamp(levels[0], levels[-1])
        above = torch.searchsorted(levels, log).clamp(1, len(levels) - 1)
        share = (log - levels[above - 1]) / (levels[above] - levels[above - 1])
        return (above - 1 + share).to(sigma)

    @property
    def begin(self) -> float:
        """The flow time of the highest noise level."""
        return 1 / (1 + float(self._log_sigmas[-1].exp()))

    @property
    def _log_sigmas(self) -> Tensor:
        alphas = self.alphas.double().cpu()
        return ((1 - alphas) / alphas).log() / 2


def flow_field(model: Callable[[Tensor, Tensor], Tensor], time_of: Callable[[Tensor], Tensor],
               prediction: Prediction) -> VelocityField:
    """The velocity field of a diffusion model.

    Args:
        model: (z (B, ...), the model's own time (B,)) -> its prediction (B, ...).
        time_of: noise level sigma (B,) -> the model's own time (B,).
        prediction: what the model says.

    Raises:
        ValueError: an unknown kind of prediction.
    """
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise ValueError(f"cannot make a flow of a model that predicts {prediction!r}")

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        length = torch.hypot(t, 1 - t)
        a, b = per_sample(t / length, x), per_sample((1 - t) / length, x)
        z = (a + b) * x
        said = model(z, time_of((1 - t) / t))
        if prediction == "epsilon":
            return (x - said) / per_sample(t, x)
        if prediction == "v_prediction":
            return (a - b) * z - (a + b) * said  # x_1 = a z - b v, noise = b z + a v
        return endpoint_to_velocity({"x": said}, {"x": x}, t)["x"]

    return plain(velocity)
