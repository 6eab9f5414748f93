"""Root finding through a flow, against problems whose solution is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from molflow.flow.newton import Root, _followed, _shortest, find_root
from molflow.flow.solvers import integrate, memoryless, time_grid
from molflow.flow.source import Shell
from molflow.flow.state import EuclideanSpace, State

F64 = torch.float64
B, D, STEPS = 5, 40, 4
EVERYTHING = torch.ones(B, dtype=torch.bool)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


SPACE = EuclideanSpace({"x": (D,)}, None, B, dtype=F64)
START = {"x": randn(B, D, seed=0)}
MATRIX = 0.15 * randn(D, D, seed=1)
READ = randn(3, D, seed=2) / D**0.5
GOAL = 0.3 * randn(B, 3, seed=3)


def flow(x: State, index: Tensor) -> State:
    """A nonlinear flow: every direction is stretched by its own amount, which depends on where one is."""
    field = memoryless(lambda t, x: {"x": torch.tanh(x["x"] @ MATRIX.T)})
    return integrate(field, x, grid=time_grid(STEPS), method="midpoint", checkpoint=True).state


def residual(end: State, index: Tensor) -> tuple[Tensor, Tensor]:
    return end["x"] @ READ.T + 0.2 * (end["x"] @ READ.T) ** 2 - GOAL[index], EVERYTHING[index]


def solve(residual=residual, gradients: int = 4, trials: int = 3, tolerance: float = 1e-8, **rest):
    start = Root.at(flow, residual, START, nfe_per_flow=2 * STEPS)
    return find_root(flow, residual, SPACE, start, gradients=gradients, trials=trials, nfe_per_flow=2 * STEPS,
                     tolerance=tolerance, max_step=3.0, **rest)


def test_roots_are_found_on_the_shell_and_are_what_they_say() -> None:
    root = solve()
    assert (root.norm <= 1e-8).all()
    again = flow(root.source, torch.arange(B))
    torch.testing.assert_close(again["x"], root.endpoint["x"])
    torch.testing.assert_close(residual(again, torch.arange(B))[0], root.residual)
    torch.testing.assert_close(root.source["x"].norm(dim=1), START["x"].norm(dim=1))
    assert (root.norms[1:] <= root.norms[:-1] + 1e-12).all()


def test_a_solved_problem_costs_nothing_more() -> None:
    root = solve(tolerance=1.0)
    first = residual(flow(START, torch.arange(B)), torch.arange(B))[0].norm(dim=1)
    gradient = (1 + 2 * 3) * 2 * STEPS
    assert (root.nfe[first <= 1.0] == 2 * STEPS).all()
    assert (root.nfe[first > 1.0] > gradient).all() and (first <= 1.0).any() and (first > 1.0).any()


def test_each_problem_is_solved_as_if_alone() -> None:
    together = solve(gradients=2, trials=2)
    for b in range(B):
        def one(end: State, index: Tensor, b: int = b) -> tuple[Tensor, Tensor]:
            return residual(end, index + b)

        start = Root.at(flow, one, {"x": START["x"][b : b + 1]}, nfe_per_flow=2 * STEPS)
        alone = find_root(flow, one, SPACE.select(torch.tensor([b])), start, gradients=2, trials=2,
                          nfe_per_flow=2 * STEPS, tolerance=1e-8, max_step=3.0)
        torch.testing.assert_close(alone.source["x"][0], together.source["x"][b])
        assert alone.nfe[0] == together.nfe[b]


def test_trial_steps_converge_without_new_gradients() -> None:
    root = solve(gradients=1, trials=12)
    assert (root.norm < 1e-4 * root.norms[0]).all()


def test_what_is_not_allowed_is_never_returned() -> None:
    def fenced(end: State, index: Tensor) -> tuple[Tensor, Tensor]:
        value, _ = residual(end, index)
        return value, value[:, 0] > 0.05  # the root itself lies behind the fence

    root = solve(fenced, gradients=6)
    inside = root.norm.isfinite()
    assert inside.any() and (root.residual[inside, 0] > 0.05).all() and (root.norm[inside] > 0.05).all()


def test_readings_that_fail_are_stepped_back_from() -> None:
    def holes(end: State, index: Tensor) -> tuple[Tensor, Tensor]:
        value, allowed = residual(end, index)
        far = end["x"].norm(dim=1) > flow(START, index)["x"].norm(dim=1)[index] + 0.05
        return torch.where(far[:, None], torch.nan, value), allowed

    root = solve(holes, gradients=8)
    assert root.norm.isfinite().all() and (root.norm < root.norms[0]).any()


def test_the_step_of_minimum_norm_solves_the_linear_problem() -> None:
    jacobian, r = randn(B, 3, D, seed=4), randn(B, 3, seed=5)
    step = _shortest(jacobian, r)
    wanted = -(torch.linalg.pinv(jacobian) @ r[:, :, None]).squeeze(2)
    torch.testing.assert_close(step, wanted, rtol=5e-3, atol=1e-3)  # damped by a thousandth
    assert (_shortest(torch.zeros(1, 2, D, dtype=F64), torch.ones(1, 2, dtype=F64)) == 0).all()


def test_broydens_update_meets_the_secant_condition_and_changes_nothing_else() -> None:
    jacobian, step, change = randn(B, 3, D, seed=6), randn(B, D, seed=7), randn(B, 3, seed=8)
    change[1] = torch.nan
    after = _followed(jacobian, step, change)
    assert torch.equal(after[1], jacobian[1])
    rest = torch.tensor([0, 2, 3, 4])
    torch.testing.assert_close((after @ step[:, :, None]).squeeze(2)[rest], change[rest])
    across = randn(B, D, seed=9)
    across = across - (across * step).sum(1, keepdim=True) / step.square().sum(1, keepdim=True) * step
    torch.testing.assert_close(after @ across[:, :, None], jacobian @ across[:, :, None])


def test_the_jacobian_is_that_of_the_map_on_the_shell() -> None:
    sphere = Shell.through(SPACE, START)
    w = sphere.retract(SPACE.pack(START))
    one = solve(gradients=1, trials=1, tolerance=0.0)
    step = SPACE.pack(one.source) - w
    tangent = (step * w).sum(1) / (step.norm(dim=1) * w.norm(dim=1))
    assert tangent.abs().max() < 0.3  # but for the curvature of the shell, steps go along it


def test_nonsense_is_refused() -> None:
    for gradients, trials in ((-1, 3), (1, -1)):
        with pytest.raises(ValueError, match="gradients"):
            solve(gradients=gradients, trials=trials)
