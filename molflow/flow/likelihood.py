"""Log-densities under the flow, by the instantaneous change of variables.

Along a solution of dx/dt = u(t, x) the log-density changes at the rate -div u (Chen et al. 2018, Neural ordinary
differential equations, arXiv 1806.07366, theorem 1). Integrated backward from t to the Gaussian at time 0,

    log p_t(x(t)) = log N(x(0); 0, 1) - integral_0^t div u(s, x(s)) ds

(Grathwohl et al. 2019, FFJORD, arXiv 1810.01367, sec. 2.2; Lipman et al. 2023, arXiv 2210.02747, app. C).

Densities are in nats, with respect to the packed coordinates of the `Space`: orthonormal ones of its free degrees of
freedom. The divergence is the trace of pack . u . unpack, whose projections keep it inside the space.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from molflow.flow.path import interpolate
from molflow.flow.solvers import Method, VelocityField, integrate, memoryless
from molflow.flow.state import Space, State


def log_density(
    field: VelocityField,
    x: State,
    space: Space,
    *,
    grid: Tensor,
    method: Method = "heun",
    probes: int | None = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log p_t(x) for t = grid[0], where p_0 is the standard Gaussian of the space and p_t what the ODE makes of it.

    The field gets memory = None at every evaluation: with memory it would be no ODE and have no such density. A
    field that looks at its memory when it generates therefore samples from another distribution than the one
    whose density this is.

    No graph outlives an evaluation of u, so that memory does not grow with the steps.

    Args:
        field: u, each sample independent of the others and differentiable in x.
        x: state at time grid[0], {key: (B, ...)}; projected onto the space.
        space: of the B samples.
        grid: (T + 1,) times, strictly decreasing, the last one 0.
        method: see `integrate`. "heun" and "rk4" use the divergence of every evaluation; "midpoint" wastes half.
        probes: Rademacher vectors an evaluation for Hutchinson's estimate of the trace (FFJORD, sec. 3.1), drawn
            anew each time, so that their errors average out over the steps. The estimate of log p is unbiased.
            None for the exact trace: one vector-Jacobian product a packed coordinate.
        generator: of the probes.

    Returns:
        (B,) float64, nats. The state is integrated in its own dtype, the divergence summed up in float64.

    Raises:
        ValueError: probes below 1, or a grid that does not decrease to 0.
    """
    if probes is not None and probes < 1:
        raise ValueError(f"need probes >= 1, or None for the exact trace, got {probes}")
    if grid.dim() != 1 or grid[-1] != 0 or not grid[0] > 0:
        raise ValueError("grid must decrease from the time of x to 0")

    @memoryless
    def augmented(t: Tensor, state: State) -> State:
        with torch.enable_grad():
            point = state["point"].detach().requires_grad_()
            velocity = space.pack(field(t, space.unpack(point), None)[0])
            trace = torch.zeros_like(state["integral"])
            for vector, weight in _vectors(point, probes, generator):
                (product,) = torch.autograd.grad(velocity, point, vector, retain_graph=True)
                trace += weight * (product * vector).sum(1)
        return {"point": velocity.detach(), "integral": trace}

    point = space.pack(x).detach()
    start = {"point": point, "integral": point.new_zeros(len(point), dtype=torch.float64)}
    with torch.no_grad():
        end = integrate(augmented, start, grid=grid, method=method).state
    freedom = sum(freedom for _, freedom in space.groups().values())
    return _log_normal(end["point"], torch.as_tensor(freedom)) + end["integral"]  # from t to 0: the sign is turned


def dequantised_bound(
    field: VelocityField,
    data: State,
    noise: State,
    space: Space,
    *,
    discrete: Collection[str],
    grid: Tensor,
    method: Method = "heun",
    probes: int | None = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One draw of a lower bound of log p(data), where some modalities are classes laid out as one-hot vectors.

    At t = 1 the density of one-hot data is a sum of deltas, so the flow is stopped at t = grid[0], just before, and
    completed to a model of the data: z ~ p_t; a class is the arg-max of z; a continuous x is drawn from
    N(z / t, ((1 - t) / t)^2). Variational dequantisation (Ho et al. 2019, Flow++, arXiv 1902.00275, sec. 3.1) with the
    path's own q(z | data) = N(t data, (1 - t)^2) bounds its likelihood from below:

        log p(data) >= E_q[log p_t(z) - sum over discrete log q(z | data) + sum over continuous d log t],

    d the degrees of freedom. In a continuous modality log p(x | z) - log q(z | x) is just d log t. Continuous
    data thus have a density at the resolution (1 - t) / t of their own unit, and a bound is only to be compared with
    others of the same t. The arg-max of z must be the class with a probability of practically 1 under q: the margin
    of a class is t / (sqrt(2) (1 - t)) standard deviations.

    Args:
        field, space, grid, method, probes, generator: as in `log_density`.
        data: x(1), {key: (B, ...)}.
        noise: a standard Gaussian draw, `space.noise`; the mean over draws is the bound.
        discrete: the modalities that are classes.

    Returns:
        (B,) float64, nats; of the continuous modalities a density in the space's orthonormal coordinates.

    Raises:
        ValueError: as `log_density`, or grid[0] is not below 1.
    """
    t = float(grid[0])
    if not t < 1:
        raise ValueError(f"one-hot data have no density at t = 1: the grid must start below, got {t}")
    like = next(iter(data.values()))
    z = interpolate(noise, data, like.new_tensor(t))
    bound = log_density(field, z, space, grid=grid, method=method, probes=probes, generator=generator)
    packed = space.pack(noise)
    for key, (columns, freedom) in space.groups().items():
        if key in discrete:
            bound = bound - _log_normal(packed[:, columns], freedom) + freedom * math.log(1 - t)
        else:
            bound = bound + freedom * math.log(t)
    return bound


def _vectors(
    point: Tensor, probes: int | None, generator: torch.Generator | None
) -> Iterator[tuple[Tensor, float]]:
    """Vectors v (B, D) and their weights, whose sum of weight v v^T is the identity, or is so on average."""
    if probes is None:
        for basis in torch.eye(point.shape[1], dtype=point.dtype, device=point.device):
            yield basis.expand_as(point), 1.0
        return
    device = generator.device if generator else point.device
    for _ in range(probes):
        signs = torch.randint(0, 2, point.shape, generator=generator, device=device)
        yield (2 * signs - 1).to(point), 1 / probes


def _log_normal(x: Tensor, freedom: Tensor) -> Tensor:
    """log N(x; 0, 1) of packed coordinates (B, D) with `freedom` (B,) degrees of freedom, in float64."""
    return -0.5 * (x.double().square().sum(1) + freedom * math.log(2 * math.pi))
