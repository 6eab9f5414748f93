"""Improving source points where the flow is too rough for gradients: a (1 + lambda) evolution strategy.

A flow that makes discrete things (which atoms, which bonds) is nearly a step function of its source: a gradient says
how a molecule bends, not which other one to make. Small random changes of the source make relatives of a molecule.
They are the proposals of preconditioned Crank-Nicolson, x' = sqrt(1 - b^2) x + b noise (Cotter, Roberts, Stuart &
White 2013, Statist. Sci. 28, 424), under which a Gaussian draw stays one; b follows success (Rechenberg's rule).
"""

from __future__ import annotations

import torch
from torch import Tensor

from molflow.flow.newton import Residual, Root, length_where
from molflow.flow.source import Flow
from molflow.flow.state import Space, per_sample, select

GROW, SHRINK = 1.5, 0.7
"""Of b, after a generation with a better child and after one without: steady at one success in three."""

LEAST = 0.2
"""Of the first b: a change too small to make another molecule would find nothing, and then shrink further."""


@torch.no_grad()
def evolve(
    flow: Flow,
    residual: Residual,
    space: Space,
    parent: Root,
    *,
    generations: int,
    children: int,
    scale: float,
    generator: torch.Generator | None,
    nfe_per_flow: int,
    tolerance: float,
) -> Root:
    """Shorten residual(flow(x0)) by selection, each problem for itself, until it is below `tolerance`.

    Args:
        flow, residual: see `molflow.flow.newton`; run without gradients.
        space: of the B problems.
        parent: where to start: sources, endpoints and residuals of B problems.
        generations: most generations.
        children: of each problem in each.
        scale: b of the first generation, below 1.
        generator: of the noise, on the space's device.
        nfe_per_flow: evaluations of u that one call of `flow` makes per row.
        tolerance: length of a residual that is short enough.

    Returns:
        The best of each problem; `nfe` and `norms` go on from those of the parent.
    """
    source, endpoint = ({key: x.clone() for key, x in state.items()} for state in (parent.source, parent.endpoint))
    r, norm = parent.residual.clone(), parent.norm.clone()
    b, nfe = torch.full_like(norm, scale), parent.nfe.clone()
    norms: list[Tensor] = []
    for _ in range(generations):
        index = (norm > tolerance).nonzero().squeeze(1)
        if not len(index):
            break
        rows = index.repeat_interleave(children)
        noise = space.select(rows).noise(generator)
        change = b[rows]
        child = {key: per_sample((1 - change.square()).sqrt(), x) * source[key][rows] + per_sample(change, x) * x
                 for key, x in noise.items()}
        end = flow(child, rows)
        value, allowed = residual(end, rows)
        length = length_where(value, allowed).view(-1, children)
        best = length.argmin(1)
        winner = best + children * torch.arange(len(index), device=best.device)
        better = length.amin(1) < norm[index]
        b[index] = (b[index] * torch.where(better, GROW, SHRINK)).clamp(LEAST * scale, scale)
        nfe[index] += children * nfe_per_flow
        taken, won = index[better], winner[better]
        norm[taken], r[taken] = length.flatten()[won], value[won]
        for state, made in ((source, child), (endpoint, end)):
            for key, x in select(made, won).items():
                state[key][taken] = x
        norms.append(norm.clone())
    return Root(source, endpoint, r, norm, torch.cat([parent.norms, *(n[None] for n in norms)]), nfe)
