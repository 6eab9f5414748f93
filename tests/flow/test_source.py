import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from molflow.flow.lbfgs import minimise
from molflow.flow.solvers import integrate, memoryless, time_grid
from molflow.flow.source import Shell, optimise_source
from molflow.flow.state import EuclideanSpace, State, select

F64 = torch.float64
B = 4
SHAPES = {"a": (3, 2), "b": (5,)}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def space() -> EuclideanSpace:
    """Two modalities; the number of free rows of `a` differs, and sample 3 has none."""
    rows = torch.tensor([3, 2, 1, 0])
    return EuclideanSpace(SHAPES, {"a": torch.arange(3)[None, :, None] < rows[:, None, None]}, B, dtype=F64)


A = {"a": 0.6 * randn(2, 2, seed=1), "b": 0.6 * randn(5, 5, seed=2)}
C = {"a": randn(B, 3, 2, seed=3), "b": randn(B, 5, seed=4)}
GOAL = randn(B, 5, seed=6)
STEPS = 6


def flow(x: State, index: Tensor) -> State:
    field = memoryless(lambda t, x: {k: v @ A[k].T for k, v in x.items()})
    return integrate(field, x, grid=time_grid(STEPS), method="midpoint", checkpoint=True).state


def propagator(key: str) -> Tensor:
    """The matrix by which `flow` multiplies: midpoint steps of a linear field."""
    h = A[key] / STEPS
    return torch.matrix_power(torch.eye(len(h), dtype=F64) + h + h @ h / 2, STEPS)


def linear_loss(endpoint: State, index: Tensor) -> Tensor:
    return sum((endpoint[k] * C[k][index]).flatten(1).sum(1) for k in endpoint)


def goal_loss(endpoint: State, index: Tensor) -> Tensor:
    return (endpoint["b"].square() - GOAL[index].square()).square().sum(1)


NFE = 2 * STEPS


def norms(s: EuclideanSpace, flat: Tensor) -> dict[str, Tensor]:
    return {k: flat[:, columns].norm(dim=1) for k, (columns, _) in s.groups().items()}


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_the_shell_keeps_norms_whatever_w_is(seed: int, scale: float) -> None:
    s = space()
    shell = Shell.through(s, s.noise(torch.Generator().manual_seed(seed)))
    w = s.pack(s.unpack(scale * randn(B, 11, seed=seed + 1)))
    z = shell.retract(w)
    for key, norm in norms(s, z).items():
        torch.testing.assert_close(norm, shell.radii[key], rtol=1e-14, atol=0)
    torch.testing.assert_close(shell.retract(z), z, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(shell.retract(7 * w), z, rtol=1e-14, atol=1e-15)


def test_the_shell_through_a_source_does_not_move_it() -> None:
    s = space()
    flat = s.pack(s.noise(None))
    torch.testing.assert_close(Shell.through(s, s.unpack(flat)).retract(flat), flat, rtol=1e-14, atol=0)


def test_the_typical_shell_has_radius_root_degrees_of_freedom() -> None:
    radii = Shell.typical(space()).radii
    torch.testing.assert_close(radii["a"], torch.tensor([6.0, 4.0, 2.0, 0.0], dtype=F64).sqrt())
    torch.testing.assert_close(radii["b"], torch.full((B,), 5.0, dtype=F64).sqrt())


def test_the_gradient_is_tangent_and_finite_where_nothing_is_free() -> None:
    s = space()
    w = s.pack(s.noise(None)).requires_grad_()
    (grad,) = torch.autograd.grad(torch.sin(Shell.typical(s).retract(w)).sum(), w)
    assert grad.isfinite().all()
    for columns, _ in s.groups().values():
        torch.testing.assert_close(
            (grad * w)[:, columns].sum(1), torch.zeros(B, dtype=F64), rtol=0, atol=1e-14
        )


def test_gradcheck_of_the_retraction() -> None:
    s = EuclideanSpace(SHAPES, None, 2, dtype=F64)
    assert torch.autograd.gradcheck(Shell.typical(s).retract, randn(2, 11).requires_grad_())


def test_select_takes_radii_along() -> None:
    s, index = space(), torch.tensor([3, 1, 1])
    shell = Shell.through(s, s.noise(None))
    w = s.pack(s.noise(None))
    torch.testing.assert_close(shell.select(index).retract(w[index]), shell.retract(w)[index])


def test_linear_loss_has_its_known_minimum_on_the_product_of_spheres() -> None:
    # min over |z_k| = r_k of sum_k c_k . P_k z_k is -sum_k r_k |P_k^T c_k|, at z_k along -P_k^T c_k.
    s = space()
    start = s.noise(torch.Generator().manual_seed(0))
    out = optimise_source(
        flow, linear_loss, s, start, max_evals=100, nfe_per_flow=NFE, gtol=1e-9, ftol=0, max_step=2.0
    )
    shell = Shell.through(s, start)
    direction = s.pack(s.unpack(s.pack({k: C[k] @ propagator(k) for k in SHAPES})))
    lengths = norms(s, direction)
    torch.testing.assert_close(
        out.loss, -sum(shell.radii[k] * lengths[k] for k in SHAPES), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(s.pack(out.source), shell.retract(-direction), rtol=1e-6, atol=1e-6)
    for key, norm in norms(s, s.pack(out.source)).items():
        torch.testing.assert_close(norm, shell.radii[key], rtol=1e-14, atol=0)
    assert (out.source["a"][~s.masks["a"]] == 0).all()


@pytest.mark.parametrize("max_evals", [1, 2, 5, 40])
def test_source_endpoint_and_loss_belong_together(max_evals: int) -> None:
    s = space()
    start = s.noise(torch.Generator().manual_seed(1))
    out = optimise_source(flow, goal_loss, s, start, max_evals=max_evals, nfe_per_flow=NFE)
    everyone = torch.arange(B)
    endpoint = flow(out.source, everyone)
    for key in SHAPES:
        torch.testing.assert_close(out.endpoint[key], endpoint[key], rtol=1e-13, atol=1e-13)
        assert not out.source[key].requires_grad and not out.endpoint[key].requires_grad
    torch.testing.assert_close(out.loss, goal_loss(endpoint, everyone), rtol=1e-9, atol=1e-13)
    assert torch.equal(out.losses[-1], out.loss) and len(out.losses) <= max_evals
    first = goal_loss(flow(start, everyone), everyone)
    torch.testing.assert_close(out.losses[0], first)
    assert (out.loss <= first * (1 + 1e-12)).all()
    assert torch.equal(out.nfe, 3 * NFE * out.evals)


def test_it_is_the_batched_lbfgs_on_the_shell_and_problems_are_independent() -> None:
    s = space()
    start = s.noise(torch.Generator().manual_seed(2))
    together = optimise_source(flow, goal_loss, s, start, max_evals=15, nfe_per_flow=NFE)
    for i in range(B):
        row = torch.tensor([i])
        alone = optimise_source(
            lambda x, j: flow(x, j),
            lambda x, j, i=i: goal_loss(x, j + i),
            s.select(row),
            select(start, row),
            max_evals=15,
            nfe_per_flow=NFE,
        )
        torch.testing.assert_close(together.loss[i], alone.loss[0], rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(together.source["b"][i], alone.source["b"][0], rtol=1e-6, atol=1e-6)
        assert together.evals[i] == alone.evals[0]
    shell = Shell.through(s, start)
    plain = minimise(
        lambda w, j: goal_loss(flow(shell.space.select(j).unpack(shell.select(j).retract(w)), j), j),
        s.pack(start),
        max_evals=15,
    )
    torch.testing.assert_close(plain.loss, together.loss, rtol=1e-6, atol=1e-12)


def test_target_and_a_shell_of_ones_choice() -> None:
    s = space()
    start = s.noise(torch.Generator().manual_seed(3))
    shell = Shell.typical(s)
    out = optimise_source(flow, goal_loss, s, start, max_evals=200, nfe_per_flow=NFE, shell=shell, target=5.0)
    for key, norm in norms(s, s.pack(out.source)).items():
        torch.testing.assert_close(norm, shell.radii[key], rtol=1e-14, atol=0)
    reached = out.loss <= 5.0
    assert reached.any() and out.converged[reached].all()


def test_a_loss_that_is_nan_at_the_start_of_one_problem_leaves_the_others_alone() -> None:
    def loss(endpoint: State, index: Tensor) -> Tensor:
        return torch.where(index == 1, torch.nan, 1.0) * goal_loss(endpoint, index)

    s = space()
    start = s.noise(torch.Generator().manual_seed(4))
    bad = optimise_source(flow, loss, s, start, max_evals=20, nfe_per_flow=NFE)
    good = optimise_source(flow, goal_loss, s, start, max_evals=20, nfe_per_flow=NFE)
    assert bad.loss[1].isnan() and bad.evals[1] == 1
    torch.testing.assert_close(bad.source["b"][1], start["b"][1])
    torch.testing.assert_close(bad.loss[[0, 2, 3]], good.loss[[0, 2, 3]], rtol=1e-6, atol=1e-12)
