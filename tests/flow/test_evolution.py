"""Evolution of source points, on flows whose endpoints are known."""

from __future__ import annotations

import torch
from torch import Tensor

from molflow.flow.evolution import evolve
from molflow.flow.newton import Root
from molflow.flow.state import EuclideanSpace, State

F64 = torch.float64
B, D, NFE = 6, 12, 3
SPACE = EuclideanSpace({"x": (D,)}, None, B, dtype=F64)
START = {"x": torch.randn(B, D, generator=torch.Generator().manual_seed(0), dtype=F64)}
GOAL = torch.randn(B, 2, generator=torch.Generator().manual_seed(1), dtype=F64)


def steps(x: State, index: Tensor) -> State:
    """A flow that makes discrete things: no gradient says anything."""
    return {"x": (4 * x["x"]).round() / 4}


def residual(end: State, index: Tensor) -> tuple[Tensor, Tensor]:
    return end["x"][:, :2] - GOAL[index], torch.ones(len(index), dtype=torch.bool)


def grow(residual=residual, generations: int = 300, tolerance: float = 0.15, seed: int = 0) -> tuple[Root, Root]:
    parent = Root.at(steps, residual, START, nfe_per_flow=NFE)
    rng = torch.Generator().manual_seed(seed)
    return parent, evolve(steps, residual, SPACE, parent, generations=generations, children=4, scale=0.3,
                          generator=rng, nfe_per_flow=NFE, tolerance=tolerance)


def test_the_best_is_what_it_says_and_is_found_where_gradients_are_none() -> None:
    parent, root = grow()
    index = torch.arange(B)
    torch.testing.assert_close(steps(root.source, index)["x"], root.endpoint["x"])
    torch.testing.assert_close(residual(root.endpoint, index)[0], root.residual)
    torch.testing.assert_close(root.residual.norm(dim=1), root.norm)
    assert (root.norms[1:] <= root.norms[:-1]).all() and (root.norm < 0.5 * parent.norm).float().mean() > 0.8


def test_what_is_spent_is_counted_and_the_solved_spend_nothing() -> None:
    parent, root = grow(generations=3, tolerance=0.0)
    assert (root.nfe == parent.nfe + 3 * 4 * NFE).all()
    parent, root = grow(tolerance=float(Root.at(steps, residual, START, nfe_per_flow=NFE).norm.median()))
    done = parent.norm <= parent.norm.median()
    assert torch.equal(root.nfe[done], parent.nfe[done]) and (root.nfe[~done] > parent.nfe[~done]).all()
    torch.testing.assert_close(root.source["x"][done], START["x"][done])


def test_children_that_will_not_do_are_never_kept() -> None:
    def fenced(end: State, index: Tensor) -> tuple[Tensor, Tensor]:
        value, _ = residual(end, index)
        return value, end["x"][:, 2] > 0

    _, root = grow(fenced)
    kept = root.norm.isfinite()
    assert kept.any() and (root.endpoint["x"][kept, 2] > 0).all()


def test_without_selection_sources_stay_gaussian() -> None:
    """The proposal keeps the standard normal distribution: a chain of accepted children has its mean and spread."""
    space = EuclideanSpace({"x": (D,)}, None, 400, dtype=F64)
    rng = torch.Generator().manual_seed(3)
    start = space.noise(rng)
    count = iter(range(1000, 0, -1))

    def ever_better(end: State, index: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(index), 1), float(next(count)), dtype=F64), torch.ones(len(index), dtype=torch.bool)

    parent = Root.at(lambda x, index: x, ever_better, start, nfe_per_flow=1)
    root = evolve(lambda x, index: x, ever_better, space, parent, generations=200, children=1, scale=0.3,
                  generator=rng, nfe_per_flow=1, tolerance=0.0)
    sample = root.source["x"].flatten()
    assert abs(float(sample.mean())) < 0.06 and abs(float(sample.var()) - 1) < 0.06
    assert abs(float((sample * start["x"].flatten()).mean())) < 0.1  # and nothing is left of where it began
