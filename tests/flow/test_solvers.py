"""Solvers against fields whose solution, Jacobian or discrete map is known in closed form."""

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torchdiffeq import odeint

from molflow.flow.path import endpoint_to_velocity
from molflow.flow.solvers import (
    Method,
    VelocityField,
    integrate,
    integrate_adaptive,
    memoryless,
    nfe_of,
    time_grid,
)
from molflow.flow.state import State, per_sample

METHODS: tuple[Method, ...] = get_args(Method)
ORDER = {"euler": 1, "adams": 2, "midpoint": 2, "heun": 2, "rk4": 4}
F64 = torch.float64
B, D = 3, 4


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


A = randn(D, D, seed=1) * 0.7


def linear(t: Tensor, x: State) -> State:
    return {"x": x["x"] @ A.T}


def swinging(t: Tensor, x: State) -> State:
    """x' = cos(3t) (1 + x^2), y' = x y: non-linear, depends on time and couples two modalities."""
    rate = per_sample((3 * t).cos(), x["x"])
    return {"x": 0.5 * rate * (1 + x["x"].square()), "y": x["x"].mean(1)[:, None, None] * x["y"]}


def swinging_start() -> State:
    return {"x": 0.5 * randn(B, D), "y": randn(B, 2, 2, seed=5)}


def swung(x0: Tensor, t: float) -> Tensor:
    """Exact x(t) of `swinging`: arctan x grows by sin(3t) / 6."""
    return torch.tan(torch.atan(x0) + math.sin(3 * t) / 6)


def discrete_map(method: Method, steps: int) -> Tensor:
    """What a method makes of x' = A x in equal steps from 0 to 1."""
    hA = A / steps
    if method == "adams":
        before, now = torch.eye(D, dtype=F64), torch.eye(D, dtype=F64) + hA
        for _ in range(steps - 1):
            before, now = now, now + hA @ (1.5 * now - 0.5 * before)
        return now
    # an s-stage Runge-Kutta method of order s: sum_k (hA)^k / k!, k <= s, at every step
    R = sum(torch.matrix_power(hA, k) / math.factorial(k) for k in range(ORDER[method] + 1))
    return torch.matrix_power(R, steps)


@pytest.mark.parametrize("method", METHODS)
def test_linear_field_gives_the_methods_own_polynomial(method: Method) -> None:
    x = randn(B, D)
    got = integrate(memoryless(linear), {"x": x}, grid=time_grid(7), method=method)
    torch.testing.assert_close(got.state["x"], x @ discrete_map(method, 7).T, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_gradient_is_the_transposed_jacobian_of_the_discrete_map(method: Method, checkpoint: bool) -> None:
    x, c = randn(B, D).requires_grad_(), randn(B, D, seed=2)
    out = integrate(memoryless(linear), {"x": x}, grid=time_grid(7), method=method, checkpoint=checkpoint)
    (grad,) = torch.autograd.grad((c * out.state["x"]).sum(), x)
    torch.testing.assert_close(grad, c @ discrete_map(method, 7), rtol=1e-13, atol=1e-13)


def test_fine_steps_reach_the_matrix_exponential_and_its_gradient() -> None:
    x, c = randn(B, D).requires_grad_(), randn(B, D, seed=2)
    grid = time_grid(200)
    end = integrate(memoryless(linear), {"x": x}, grid=grid, method="rk4", checkpoint=True).state["x"]
    E = torch.matrix_exp(A)
    torch.testing.assert_close(end, x @ E.T, rtol=1e-9, atol=1e-9)
    (grad,) = torch.autograd.grad((c * end).sum(), x)
    torch.testing.assert_close(grad, c @ E, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("method", METHODS)
def test_convergence_order(method: Method, power: float) -> None:
    x = swinging_start()
    exact = swung(x["x"], 1.0)
    errors = []
    for steps in (16, 32, 64):
        grid = time_grid(steps, power=power)
        end = integrate(memoryless(swinging), x, grid=grid, method=method).state["x"]
        errors.append((end - exact).abs().max().item())
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert abs(slopes[-1] - ORDER[method]) < 0.35, (errors, slopes)


@pytest.mark.parametrize("method", METHODS)
def test_forward_then_backward_returns(method: Method) -> None:
    x = swinging_start()
    errors = []
    for steps in (20, 40):
        grid = time_grid(steps, power=1.5)
        end = integrate(memoryless(swinging), x, grid=grid, method=method).state
        back = integrate(memoryless(swinging), end, grid=grid.flip(0), method=method).state
        errors.append(max((back[k] - x[k]).abs().max().item() for k in x))
    assert errors[1] < errors[0] * 0.65
    assert errors[1] < {"euler": 0.2, "adams": 2e-2, "midpoint": 5e-3, "heun": 5e-3, "rk4": 1e-6}[method]


@pytest.mark.parametrize(
    ("method", "theirs"), [("euler", "euler"), ("midpoint", "midpoint"), ("heun", "heun2")]
)
def test_agrees_with_torchdiffeq_on_the_same_grid(method: Method, theirs: str) -> None:
    x, grid = swinging_start(), time_grid(9, power=1.7)

    def f(t: Tensor, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(swinging(t.expand(B), dict(zip(x, values, strict=True))).values())

    reference = odeint(f, tuple(x.values()), grid, method=theirs)
    ours = integrate(memoryless(swinging), x, grid=grid, method=method, trajectory=True).trajectory
    assert ours is not None and len(ours) == 10
    for key, path in zip(x, reference, strict=True):
        torch.testing.assert_close(torch.stack([s[key] for s in ours]), path, rtol=1e-13, atol=1e-13)


def test_rk4_is_simpsons_rule_for_a_field_of_time_only() -> None:
    # torchdiffeq's "rk4" is the 3/8 rule; the classical one turns into Simpson's rule, by hand here.
    field = memoryless(lambda t, x: {"x": per_sample(torch.exp(2 * t), x["x"]).expand_as(x["x"])})
    a, b = 0.2, 0.9
    simpson = (b - a) / 6 * (math.exp(2 * a) + 4 * math.exp(a + b) + math.exp(2 * b))
    end = integrate(
        field, {"x": torch.zeros(B, 1, dtype=F64)}, grid=torch.tensor([a, b], dtype=F64), method="rk4"
    )
    torch.testing.assert_close(end.state["x"], torch.full((B, 1), simpson, dtype=F64))


def test_adaptive_reaches_the_exact_solution_and_counts() -> None:
    calls = 0

    def counted(t: Tensor, x: State) -> State:
        nonlocal calls
        calls += 1
        assert t.shape == (B,)
        return swinging(t, x)

    x = swinging_start()
    out = integrate_adaptive(memoryless(counted), x, t0=0.0, t1=1.0, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(out.state["x"], swung(x["x"], 1.0), rtol=1e-8, atol=1e-8)
    assert out.nfe == calls
    back = integrate_adaptive(memoryless(swinging), out.state, t0=1.0, t1=0.0, rtol=1e-10, atol=1e-10)
    for key in x:
        torch.testing.assert_close(back.state[key], x[key], rtol=1e-7, atol=1e-7)
    loose = integrate_adaptive(memoryless(swinging), x, t0=0.0, t1=1.0, rtol=1e-3, atol=1e-3)
    assert loose.nfe < out.nfe


def test_adaptive_is_differentiable_and_hands_no_memory() -> None:
    def field(t: Tensor, x: State, memory: State | None) -> tuple[State, State | None]:
        assert memory is None
        return linear(t, x), x

    x, c = randn(B, D).requires_grad_(), randn(B, D, seed=2)
    end = integrate_adaptive(field, {"x": x}, t0=0.0, t1=1.0, rtol=1e-10, atol=1e-10).state["x"]
    (grad,) = torch.autograd.grad((c * end).sum(), x)
    torch.testing.assert_close(grad, c @ torch.matrix_exp(A), rtol=1e-7, atol=1e-7)


def test_the_gaussian_to_gaussian_flow_is_the_affine_map() -> None:
    # Data N(m, s^2): the optimal transport path has E[x_1 | x_t] in closed form, and x_1 = m + s x_0 exactly.
    m, s = torch.tensor([2.0, -1.0], dtype=F64), torch.tensor([0.5, 1.7], dtype=F64)

    def marginal(t: Tensor, x: State) -> State:
        time = per_sample(t, x["x"])
        variance = (1 - time) ** 2 + (time * s) ** 2
        endpoint = m + time * s**2 / variance * (x["x"] - time * m)
        return endpoint_to_velocity({"x": endpoint}, x, t)

    x0 = randn(4000, 2)
    end = integrate(memoryless(marginal), {"x": x0}, grid=time_grid(60), method="midpoint").state["x"]
    torch.testing.assert_close(end, m + s * x0, rtol=2e-3, atol=2e-3)
    assert ((end.mean(0) - m).abs() < 4 * s / math.sqrt(4000)).all()
    torch.testing.assert_close(end.std(0), s, rtol=0.05, atol=0)


# A network with memory: what it said last time enters, as in self-conditioning.


def self_conditioned(weight: Tensor) -> VelocityField:
    def field(t: Tensor, x: State, memory: State | None) -> tuple[State, State | None]:
        said = torch.zeros_like(x["x"]) if memory is None else memory["said"]
        v = torch.tanh((x["x"] + 0.5 * said) @ weight + per_sample(t, x["x"]))
        return {"x": v}, {"said": v + 1}

    return field


@pytest.mark.parametrize("checkpoint", [False, True])
def test_memory_is_handed_on_through_stages_and_steps(checkpoint: bool) -> None:
    seen: list[float | None] = []

    def field(t: Tensor, x: State, memory: State | None) -> tuple[State, State | None]:
        seen.append(None if memory is None else memory["n"][0].item())
        count = torch.ones(B) if memory is None else memory["n"] + 1
        return {"x": per_sample(count, x["x"]) * torch.ones_like(x["x"])}, {"n": count}

    grid = torch.tensor([0.0, 0.5, 1.0])
    out = integrate(field, {"x": torch.zeros(B, 1)}, grid=grid, method="heun", checkpoint=checkpoint)
    assert seen == [None, 1, 2, 3]
    # Two Heun steps of 1/2 with velocities (1, 2) and (3, 4).
    torch.testing.assert_close(out.state["x"], torch.full((B, 1), 0.5 * 1.5 + 0.5 * 3.5))


@pytest.mark.parametrize("method", METHODS)
def test_gradcheck_through_checkpointed_steps_with_memory_and_parameters(method: Method) -> None:
    def end(x: Tensor, weight: Tensor) -> Tensor:
        return integrate(
            self_conditioned(weight), {"x": x}, grid=time_grid(3), method=method, checkpoint=True
        ).state["x"]

    inputs = (randn(2, 3).requires_grad_(), randn(3, 3, seed=3).requires_grad_())
    assert torch.autograd.gradcheck(end, inputs)


@pytest.mark.parametrize("method", METHODS)
def test_checkpointing_changes_no_gradient(method: Method) -> None:
    def gradients(checkpoint: bool) -> tuple[Tensor, ...]:
        x, weight = randn(B, D).requires_grad_(), randn(D, D, seed=3).requires_grad_()
        grid = time_grid(6).flip(0)
        end = integrate(
            self_conditioned(weight), {"x": x}, grid=grid, method=method, checkpoint=checkpoint
        ).state["x"]
        return torch.autograd.grad(end.square().sum(), (x, weight))

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-14, atol=1e-14)


WIDTH = 20000
WEIGHT = randn(4, WIDTH) * 0.01


def peak_hidden_layers(steps: int, checkpoint: bool) -> float:
    """Peak memory of forward and backward pass, in units of the hidden layer of one evaluation."""

    def wide(t: Tensor, x: State) -> State:
        return {"x": torch.tanh(x["x"] @ WEIGHT) @ WEIGHT.T}

    x = randn(B, 4).requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        grid = time_grid(steps)
        out = integrate(memoryless(wide), {"x": x}, grid=grid, method="midpoint", checkpoint=checkpoint)
        out.state["x"].sum().backward()
    assert record.profiler is not None
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak / (B * WIDTH * 8)


def test_memory_of_activations_does_not_grow_with_the_number_of_steps() -> None:
    assert peak_hidden_layers(16, checkpoint=False) > 2 * 16
    assert peak_hidden_layers(16, checkpoint=True) < peak_hidden_layers(2, checkpoint=True) + 0.5 < 6


@pytest.mark.parametrize("method", METHODS)
def test_nfe_is_what_was_called_and_trajectory_has_every_time(method: Method) -> None:
    calls: list[Tensor] = []

    def counted(t: Tensor, x: State) -> State:
        calls.append(t)
        return linear(t, x)

    x = {"x": randn(B, D)}
    out = integrate(memoryless(counted), x, grid=time_grid(5), method=method, trajectory=True)
    assert out.nfe == len(calls) == nfe_of(method, 5)
    assert all(t.shape == (B,) and t.dtype == F64 for t in calls)
    assert out.trajectory is not None and len(out.trajectory) == 6
    assert out.trajectory[0] is x and out.trajectory[-1] is out.state
    assert integrate(memoryless(linear), x, grid=time_grid(5), method=method).trajectory is None


@pytest.mark.parametrize("grid", [[0.0], [0.0, 0.5, 0.5, 1.0], [0.0, 1.0, 0.5], [[0.0, 1.0]]])
def test_bad_grids_are_refused(grid: list[float]) -> None:
    with pytest.raises(ValueError, match="grid"):
        integrate(memoryless(linear), {"x": randn(B, D)}, grid=torch.tensor(grid), method="euler")


def test_time_grid() -> None:
    torch.testing.assert_close(time_grid(4), torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=F64))
    warped = time_grid(10, power=2.0)
    assert warped[0] == 0 and warped[-1] == 1 and (warped.diff().diff() < 0).all()
    for bad in ({"steps": 0}, {"steps": 3, "power": 0.0}):
        with pytest.raises(ValueError):
            time_grid(**bad)
