"""Finding the source point whose endpoint is wanted: descend through the ODE on the shell.

Ben-Hamu et al. 2024 (D-Flow, arXiv 2402.14017): min over x(0) of loss(x(1)), x(1) = flow(x(0)).
The gradient that arrives at x(0) has passed the transposed Jacobian of the flow, which stretches directions
along the data and shrinks those off it; that is the prior. It does not hold the norm of x(0), so the norm is
held here: a d-dimensional Gaussian lives at radius sqrt(d), and off it the flow was never trained.

In all signatures `flow(x0, index)` maps sources to endpoints and `loss(endpoint, index)` grades them, row by
row independently; index (b,) says which of the B problems the rows belong to, so that a caller can pick each
row's mask or target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from molflow.flow.lbfgs import minimise
from molflow.flow.state import Space, State, select

Flow = Callable[[State, Tensor], State]
Loss = Callable[[State, Tensor], Tensor]


@dataclass(frozen=True)
class Shell:
    """The sources of a space whose every group keeps its norm: a product of spheres for each sample.

    Attributes:
        space: the space the sources live in.
        radii: for each group the norm (B,) of its packed block.
    """

    space: Space
    radii: dict[str, Tensor]

    @classmethod
    def through(cls, space: Space, state: State) -> Shell:
        """The shell on which a given source lies; keeps the spread of norms that Gaussian draws have."""
        flat = space.pack(state)
        return cls(space, {key: flat[:, columns].norm(dim=1) for key, (columns, _) in space.groups().items()})

    @classmethod
    def typical(cls, space: Space) -> Shell:
        """The shell of radius sqrt(degrees of freedom), around which Gaussian draws concentrate."""
        return cls(space, {key: freedom.double().sqrt() for key, (_, freedom) in space.groups().items()})

    def retract(self, w: Tensor) -> Tensor:
        """z = radius * w / |w|, group by group, (B, D) -> (B, D); a group that is all zero stays zero.

        Smooth, and the gradient of loss(z(w)) is tangent: orthogonal to w in every group.
        """
        z = torch.zeros_like(w)
        for key, (columns, _) in self.space.groups().items():
            block = w[:, columns]
            square = block.square().sum(1, keepdim=True)
            # A group with no free entries has norm 0; dividing by 1 there keeps the gradient finite too.
            norm = torch.where(square > 0, square, 1.0).sqrt()
            z[:, columns] = block * (self.radii[key].to(w)[:, None] / norm)
        return z

    def select(self, index: Tensor) -> Shell:
        """The shells of the samples `index` (b,); repeats are allowed."""
        return Shell(self.space.select(index), select(self.radii, index))


@dataclass(frozen=True)
class SourceResult:
    """The best source seen for each of B problems.

    Attributes:
        source: {key: (B, ...)}, on the shell.
        endpoint: flow(source), from the evaluation that found it.
        loss: loss of exactly that endpoint, (B,).
        losses: (rounds, B) lowest loss so far, after each round of evaluations.
        nfe: evaluations of u spent per problem, (B,) int64; see `optimise_source`.
        evals: evaluations of loss and gradient per problem, (B,) int64.
        converged: (B,) bool, as `lbfgs.Minimum`.
    """

    source: State
    endpoint: State
    loss: Tensor
    losses: Tensor
    nfe: Tensor
    evals: Tensor
    converged: Tensor


def optimise_source(
    flow: Flow,
    loss: Loss,
    space: Space,
    start: State,
    *,
    max_evals: int,
    nfe_per_flow: int,
    shell: Shell | None = None,
    history: int = 10,
    gtol: float = 1e-5,
    ftol: float = 1e-9,
    max_step: float | None = None,
    target: float | None = None,
    floor: float | None = None,
) -> SourceResult:
    """Minimise loss(flow(x0)) over the sources x0 on the shell, each problem by its own L-BFGS.

    D-Flow (Ben-Hamu et al. 2024) with three changes: per-sample L-BFGS, norms held exactly by
    x0 = radius * w / |w| instead of a penalty, and the best point seen is returned, not the last.

    An evaluation of loss and gradient counts as 3 * nfe_per_flow: the forward flow, and twice that for its
    backward pass, as is usual. What checkpoints compute again is not counted.

    Args:
        flow: see the module; differentiable, usually `integrate(..., checkpoint=True)` in a closure.
        loss: see the module; differentiable.
        space: of the B problems.
        start: first source, {key: (B, ...)}; put on the shell first.
        max_evals: evaluations of loss and gradient per problem.
        nfe_per_flow: evaluations of u that one call of `flow` makes per row.
        shell: where sources live; by default the one through `start`.
        history, gtol, ftol, max_step, target, floor: as in `lbfgs.minimise`, with respect to w.
    """
    sphere = shell or Shell.through(space, start)
    seen: dict[str, State] = {}
    lowest = torch.empty(0)

    def objective(w: Tensor, index: Tensor) -> Tensor:
        nonlocal lowest
        local = sphere.select(index)
        source = local.space.unpack(local.retract(w))
        endpoint = flow(source, index)
        values = loss(endpoint, index)
        found = {"source": _detached(source), "endpoint": _detached(endpoint)}
        now = values.detach()
        if not seen:
            seen.update(found)
            lowest = now.clone()
        # The same rule by which `minimise` keeps its best point, so that source, endpoint and loss agree.
        better = now.isfinite() & (now < lowest[index])
        lowest[index[better]] = now[better]
        for name, state in found.items():
            for key, value in state.items():
                seen[name][key][index[better]] = value[better]
        return values

    result = minimise(
        objective,
        sphere.retract(space.pack(start)),
        max_evals=max_evals,
        history=history,
        gtol=gtol,
        ftol=ftol,
        max_step=max_step,
        target=target, floor=floor,
    )
    return SourceResult(
        source=seen["source"],
        endpoint=seen["endpoint"],
        loss=result.loss,
        losses=result.losses,
        nfe=3 * nfe_per_flow * result.evals,
        evals=result.evals,
        converged=result.converged,
    )


def _detached(state: State) -> State:
    return {key: x.detach().clone() for key, x in state.items()}
