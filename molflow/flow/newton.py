"""Finding a source point whose endpoint reads as wanted: few equations in many unknowns.

For residual(flow(x0)) = 0, P equations for D >> P unknowns, the Gauss-Newton step of minimum norm,
dw = -J^T (J J^T)^-1 r, moves the source no further than the readings need, and is quadratically convergent where a
descent on |r|^2 would crawl along the stiff directions of the flow. J costs a backward pass a reading; between
gradients it follows what the trial steps say by Broyden's rank-one update, J += (y - J s) s^T / s^T s (Broyden 1965,
Math. Comp. 19, 577; Nocedal & Wright, 2nd ed., eq. 11.26), and a trial step costs a forward flow only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from molflow.flow.source import Flow, Shell
from molflow.flow.state import Space, State

Residual = Callable[[State, Tensor], tuple[Tensor, Tensor]]
"""residual(endpoint, index (b,)) -> (r (b, P), allowed (b,) bool): row by row independent, r differentiable."""

DAMPING = 1e-3
"""Of J J^T, in units of its mean diagonal: two readings that say nearly the same do not ask for a huge step."""

SHRINK = 0.35
"""A step that was refused is followed by one of at most this share of its length."""

RENEWED = 0.1
"""With a new gradient at least this share of the longest step is tried again."""


@dataclass(frozen=True)
class Root:
    """The best source seen for each of B problems.

    Attributes:
        source: {key: (B, ...)}.
        endpoint: flow(source), from the evaluation that found it.
        residual: (B, P) of exactly that endpoint.
        norm: (B,) its length; inf where no endpoint was allowed.
        norms: (rounds, B) lowest so far, after each round of evaluations.
        nfe: evaluations of u spent per problem, (B,) int64; a backward pass counts as two forward ones.
    """

    source: State
    endpoint: State
    residual: Tensor
    norm: Tensor
    norms: Tensor
    nfe: Tensor

    @classmethod
    @torch.no_grad()
    def at(cls, flow: Flow, residual: Residual, source: State, *, nfe_per_flow: int) -> Root:
        """Where a search starts: one evaluation of B sources {key: (B, ...)}."""
        index = torch.arange(len(next(iter(source.values()))), device=next(iter(source.values())).device)
        endpoint = flow(source, index)
        value, allowed = residual(endpoint, index)
        norm = length_where(value, allowed)
        return cls(source, endpoint, value, norm, norm[None], torch.full_like(index, nfe_per_flow))


def length_where(value: Tensor, allowed: Tensor) -> Tensor:
    """|r| (b,) of residuals (b, P); inf where the endpoint is not allowed or the residual not finite."""
    return torch.where(allowed & value.isfinite().all(1), value.norm(dim=1), torch.inf)


def find_root(
    flow: Flow,
    residual: Residual,
    space: Space,
    start: Root,
    *,
    gradients: int,
    trials: int,
    nfe_per_flow: int,
    tolerance: float,
    max_step: float,
    shell: Shell | None = None,
) -> Root:
    """Bring |residual(flow(x0))| below `tolerance` over the sources x0 on the shell, each problem for itself.

    Rounds of one gradient and `trials` forward steps; a problem that is solved takes part in no more of them. A step
    is taken where it shortens the residual and leads to an endpoint that is allowed; where not, the next is shorter.

    Args:
        flow: see `molflow.flow.source`; differentiable.
        residual: what has to vanish, in units in which its entries compare.
        space: of the B problems.
        start: where to begin, whose sources are put on the shell first.
        gradients: most gradients per problem.
        trials: steps after each.
        nfe_per_flow: evaluations of u that one call of `flow` makes per row.
        tolerance: length of a residual that is short enough.
        max_step: longest step of the source, Euclidean, in packed coordinates.
        shell: where sources live; by default the one through `start`.

    Returns:
        The best of each problem; `nfe` and `norms` go on from those of `start`.

    Raises:
        ValueError: gradients or trials below 0.
    """
    if gradients < 0 or trials < 0:
        raise ValueError(f"need gradients >= 0 and trials >= 0, got {gradients} and {trials}")
    sphere = shell or Shell.through(space, start.source)
    w = sphere.retract(space.pack(start.source))
    norm, r, nfe = start.norm.clone(), start.residual.clone(), start.nfe.clone()
    endpoint = {key: x.clone() for key, x in start.endpoint.items()}
    radius = torch.full_like(norm, max_step)
    jacobian = w.new_zeros(*r.shape, w.shape[1])
    norms: list[Tensor] = []

    def evaluate(point: Tensor, index: Tensor) -> tuple[State, Tensor, Tensor]:
        local = sphere.select(index)
        end = flow(local.space.unpack(local.retract(point)), index)
        value, allowed = residual(end, index)
        return end, value, allowed

    for number in range(gradients * (1 + trials)):
        index = (norm > tolerance).nonzero().squeeze(1)
        if not len(index):
            break
        if number % (1 + trials) == 0:
            point = w[index].requires_grad_()
            with torch.enable_grad():
                end, value, allowed = evaluate(point, index)
                rows = [torch.autograd.grad(column.sum(), point, retain_graph=True)[0] for column in value.unbind(1)]
            jacobian[index] = torch.stack(rows, 1)
            length = length_where(value.detach(), allowed)
            known = length.isfinite()  # rounding, which other rows in the batch change, may tip an endpoint over
            r[index] = value.detach()
            norm[index[known]] = length[known]
            for key, x in end.items():
                endpoint[key][index[known]] = x.detach()[known]
            radius[index] = radius[index].clamp_min(RENEWED * max_step)
            nfe[index] += (1 + 2 * value.shape[1]) * nfe_per_flow
        else:
            step = _shortest(jacobian[index], r[index])
            step = step * (radius[index] / step.norm(dim=1).clamp_min(1e-12)).clamp(max=1)[:, None]
            local = sphere.select(index)
            trial = local.retract(w[index] + step)
            with torch.no_grad():
                end, value, allowed = evaluate(trial, index)
            nfe[index] += nfe_per_flow
            step = trial - w[index]
            length = step.norm(dim=1)
            jacobian[index] = _followed(jacobian[index], step, value - r[index])
            better = length_where(value, allowed) < norm[index]
            radius[index] = torch.where(better, (2 * length).clamp(max=max_step), SHRINK * length)
            taken = index[better]
            w[taken], r[taken], norm[taken] = trial[better], value[better], value[better].norm(dim=1)
            for key, x in end.items():
                endpoint[key][taken] = x[better]
        norms.append(norm.clone())
    return Root(space.unpack(w), endpoint, r, norm, torch.cat([start.norms, *(n[None] for n in norms)]), nfe)


def _shortest(jacobian: Tensor, r: Tensor) -> Tensor:
    """-J^T (J J^T + damping)^-1 r: (b, P, D), (b, P) -> (b, D); no step where there is no gradient."""
    square = jacobian @ jacobian.transpose(1, 2)
    mean = square.diagonal(dim1=1, dim2=2).mean(1)
    damping = torch.where(mean > 0, DAMPING * mean, 1.0)
    square = square + damping[:, None, None] * torch.eye(r.shape[1], dtype=r.dtype, device=r.device)
    return -(torch.linalg.solve(square, r[:, None, :], left=False) @ jacobian).squeeze(1)


def _followed(jacobian: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """Broyden's update, for the rows whose reading is finite and whose step is not nothing."""
    square = step.square().sum(1)
    wrong = change - (jacobian @ step[:, :, None]).squeeze(2)
    correction = wrong[:, :, None] * step[:, None] / square.clamp_min(1e-12)[:, None, None]
    usable = change.isfinite().all(1) & (square > 1e-12)
    return torch.where(usable[:, None, None], jacobian + correction, jacobian)
