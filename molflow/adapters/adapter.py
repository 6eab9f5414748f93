"""What makes a model of pictures or of sound a flow: a velocity field, the shape of a source point, a decoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from molflow.flow.solvers import Method, VelocityField, integrate, memoryless
from molflow.flow.source import Flow
from molflow.flow.state import EuclideanSpace, State

Codec = Callable[[Tensor], Tensor]
CPU = torch.device("cpu")


def identity(x: Tensor) -> Tensor:
    """The codec of a flow whose endpoints are the signals themselves."""
    return x


@dataclass(frozen=True)
class Adapter:
    """A flow along x_t = (1 - t) x_0 + t x_1, from Gaussian noise to the endpoints of a model; `molflow.adapters` has
    an example.

    Attributes:
        field: u(t, x) of states {"x": (B, *shape)}, at times from ``begin`` to 1.
        shape: of one source point.
        decode: endpoints (B, *shape) -> signals (B, channels, *size) in [-1, 1], differentiable.
        encode: signals -> endpoints: the inverse of ``decode``, or an autoencoder's word for it.
        begin: where the flow begins. A diffusion model's noise is finite, so that its flow begins after 0.
        shift: above 1, more of the steps are near the noise (Esser et al. 2024, arXiv 2403.03206, eq. 23).
        device, dtype: of source points.
    """

    field: VelocityField
    shape: tuple[int, ...]
    decode: Codec = identity
    encode: Codec = identity
    begin: float = 0.0
    shift: float = 1.0
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    def space(self, batch: int) -> EuclideanSpace:
        """Where the source points of B problems live."""
        return EuclideanSpace({"x": self.shape}, None, batch, dtype=self.dtype, device=self.device)

    def grid(self, steps: int) -> Tensor:
        """(steps + 1,) times from ``begin`` to 1."""
        noise = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        noise = self.shift * noise / (1 + (self.shift - 1) * noise)
        return 1 - (1 - self.begin) * noise

    def flow(self, steps: int, method: Method = "midpoint", *, gradients: bool = False) -> Flow:
        """x(0) -> x(1); with ``gradients``, in memory that does not grow with the steps."""
        grid, spread = self.grid(steps), self._spread

        def run(x0: State, index: Tensor) -> State:
            start = {"x": spread * x0["x"]}
            return integrate(self.field, start, grid=grid, method=method, checkpoint=gradients).state

        return run

    @torch.no_grad()
    def invert(self, endpoint: Tensor, steps: int, method: Method = "midpoint") -> State:
        """x(1) -> x(0): the source from which the flow would come to ``endpoint`` (B, *shape)."""
        back = integrate(self.field, {"x": endpoint}, grid=self.grid(steps).flip(0), method=method).state
        return {"x": back["x"] / self._spread}

    @torch.no_grad()
    def sample(self, count: int, *, seed: int = 0, steps: int = 20, method: Method = "midpoint") -> Tensor:
        """Signals (count, channels, *size) as they come, without a measurement."""
        rng = torch.Generator(self.device).manual_seed(seed)
        run = self.flow(steps, method)
        return self.decode(run(self.space(count).noise(rng), torch.arange(count, device=self.device))["x"])

    @property
    def _spread(self) -> float:
        """Standard deviation of x(begin): 1 at time 0, and of noise and of data with variance 1 after it."""
        return math.hypot(self.begin, 1 - self.begin)


def plain(function: Callable[[Tensor, Tensor], Tensor]) -> VelocityField:
    """A velocity field from u(t (B,), x (B, *shape)) of the one tensor that flows."""
    return memoryless(lambda t, x: {"x": function(t, x["x"])})
