"""The mean of all signals that would have been measured so: the flow's own Jacobian is the covariance that says how.

At time t the flow's endpoint x̂ = x + (1 - t) u(t, x) is E[x_1 | x_t = x], and its Jacobian, scaled, the covariance
C = (1 - t)² / t  ∂x̂/∂x = Var[x_1 | x_t = x] (Ben-Hamu et al. 2024, arXiv 2402.14017, sec. 4: that is what the gradient
at a source is projected by). With both, and x_1 taken for Gaussian given x_t, the measurement is heeded in closed form,

    E[x_1 | x_t, y] = x̂ + C A' (A C A' + noise²)⁻¹ (y - A x̂)

by a few steps of conjugate gradients, each one backward pass (Rozet et al. 2024, arXiv 2405.13712, sec. 4.2). From
there to the next time by fresh noise, x_t = t m + (1 - t) noise, where m is the mean over several noises, as in
PnP-Flow (Martin et al. 2024, arXiv 2410.02423), whose step along the gradient of the misfit this replaces. Of Gaussian
data the mean is a fixed point at every t.

What was cut off, as in an overexposed picture, is known only to lie beyond a limit. In the place of such measurements
stand their means, given that and x_t, all of them taken to be as uncertain as A C A' + noise² is in the mean along its
diagonal, which one more backward pass, of random signs, estimates (Hutchinson 1990, Commun. Stat. Simul. 19, 433).

Where noise is faint, so few steps leave more of the misfit than the noise explains. That rest is taken for a white
error of the mean, which the measurement corrects in the same way, at the cost of the operator alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vjp

from molflow.adapters.adapter import Adapter
from molflow.flow.path import interpolate, velocity_to_endpoint
from molflow.flow.state import per_sample
from molflow.inverse.operators import Operator, conjugate_gradients, dot
from molflow.inverse.solve import assumed_variance, plain_signal, root_mean_square

BACKWARD = 2
"""Evaluations of u that a backward pass counts as."""

CORRECTIONS = 30
"""Steps of conjugate gradients of the last correction."""


@dataclass(frozen=True)
class Averaging:
    """How the mean is approached.

    Attributes:
        draws: noises that the mean is over, in pairs of opposite sign: even.
        steps: from one time to the next.
        begin, end: the first time, at which x is mostly noise, and the last.
        solves: steps of conjugate gradients at each time.
    """

    draws: int = 2
    steps: int = 16
    begin: float = 0.3
    end: float = 0.95
    solves: int = 1


@dataclass(frozen=True)
class Averaged:
    """What the mean is.

    Attributes:
        signal: (B, C, *size).
        path: what it was at each time; the signal is the last.
        misfit: (B,) root mean square of A(signal) - y.
        nfe: evaluations of u for each sample, a backward pass counting as two.
    """

    signal: Tensor
    path: list[Tensor]
    misfit: Tensor
    nfe: int


@torch.no_grad()
def average(adapter: Adapter, operator: Operator, measured: Tensor, *, noise: float, seed: int = 0,
            recipe: Averaging | None = None) -> Averaged:
    """The posterior mean of B inverse problems at once.

    Args:
        adapter: the prior.
        operator: A, of B samples or the same for all.
        measured: y (B, ...).
        noise: standard deviation of the measurements' noise, of signals in [-1, 1].
        seed: of the noises.
        recipe: by default as `Averaging` says.

    Raises:
        ValueError: an odd number of draws, or none.
    """
    r = recipe or Averaging()
    if r.draws < 2 or r.draws % 2:
        raise ValueError(f"draws come in pairs of opposite sign: need an even number, got {r.draws}")
    measured = measured.to(adapter.device, adapter.dtype)
    index = torch.arange(len(measured), device=adapter.device).repeat_interleave(r.draws)
    variance = assumed_variance(measured, noise)
    many, y = operator.select(index), measured[index]
    rng = torch.Generator(adapter.device).manual_seed(seed)
    half = adapter.space(len(measured) * r.draws // 2)

    mean = adapter.encode(operator.guess(measured, tuple(plain_signal(adapter).shape[2:])))
    times = torch.linspace(max(adapter.begin, r.begin), r.end, r.steps + 1).tolist()
    path = []
    for t in times:
        draw = half.noise(rng)["x"]
        noises = torch.stack([draw, -draw], 1).flatten(0, 1)
        x = interpolate({"x": noises}, {"x": mean[index]}, mean.new_tensor(t))["x"]
        mean = heeded(adapter, many, y, variance[index], t, x, r.solves, rng).unflatten(0, (-1, r.draws)).mean(1)
        path.append(adapter.decode(mean))
    signal = adapter.decode(corrected(lambda x: operator(adapter.decode(x)), measured, variance, mean))
    path[-1] = signal
    nfe = len(times) * r.draws * evaluations(operator, r.solves)
    return Averaged(signal, path, root_mean_square(operator(signal) - measured), nfe)


def corrected(measure: Callable[[Tensor], Tensor], y: Tensor, variance: Tensor, mean: Tensor) -> Tensor:
    """mean + r² A' (r² A A' + variance)⁻¹ (y - A mean). r² (B,) is such that r² A A' explains by how much the mean
    square of y - A mean exceeds the variance: 0 where it does not."""
    said, transposed = vjp(measure, mean)[:2]
    rest = y - said
    (back,) = transposed(rest)
    square = dot(rest, rest)
    gain = torch.where(square > 0, dot(back, back) / square, 1.0).clamp_min(1e-12)  # of A A', along the rest
    error = per_sample((square / rest[0].numel() - variance).clamp_min(0) / gain, rest)

    def covariance(w: Tensor) -> Tensor:
        return error * jvp(measure, (mean,), transposed(w))[1] + per_sample(variance, w) * w

    (spread,) = transposed(error * conjugate_gradients(covariance, rest, CORRECTIONS))
    return mean + spread


def evaluations(operator: Operator, solves: int) -> int:
    """Evaluations of u that `heeded` spends on a sample."""
    return 1 + BACKWARD * (solves if operator.linear else solves + 1)


def heeded(adapter: Adapter, operator: Operator, y: Tensor, variance: Tensor, t: float, x: Tensor, solves: int,
           rng: torch.Generator) -> Tensor:
    """E[x_1 | x_t = x, y] (b, *shape), by conjugate gradients on (A C A' + variance) w = y - A x̂, from w = 0.

    The generator is of the signs that an operator which is not linear needs.
    """
    uncut = operator.uncut

    def measure(x: Tensor) -> Tensor:
        return uncut(adapter.decode(x))

    with torch.enable_grad():
        x = x.requires_grad_()
        time = x.new_full((len(x),), t)
        velocity, _ = adapter.field(time, {"x": x}, None)
        end = velocity_to_endpoint(velocity, {"x": x}, time)["x"]
    found = anchor = end.detach()
    said, transposed = vjp(measure, anchor)[:2]

    def covariance(w: Tensor) -> tuple[Tensor, Tensor]:
        """C A' w and (A C A' + variance) w."""
        (spread,) = torch.autograd.grad(end, x, transposed(w)[0], retain_graph=True)
        spread = (1 - t) ** 2 / t * spread  # C is symmetric, up to what the network has not learnt
        return spread, jvp(measure, (anchor,), (spread,))[1] + per_sample(variance, w) * w

    if not operator.linear:
        signs = 2 * torch.randint(2, y.shape, generator=rng, device=y.device).to(y) - 1
        mean = (dot(signs, covariance(signs)[1]) / y[0].numel()).maximum(variance)
        y = operator.expected(y, said, per_sample(mean.sqrt(), y))
    rest = along = y - said
    square = dot(rest, rest)
    for _ in range(solves):
        spread, image = covariance(along)
        bend = dot(along, image)
        length = torch.where(bend > 0, square / bend, 0.0)
        found = found + per_sample(length, spread) * spread
        rest = rest - per_sample(length, image) * image
        before, square = square, dot(rest, rest)
        along = rest + per_sample(torch.where(before > 0, square / before, 0.0), along) * along
    return found
