import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molflow.flow.path import (
    conditional_velocity,
    endpoint_to_velocity,
    interpolate,
    velocity_to_endpoint,
)
from molflow.flow.state import State


def pair(seed: int = 0) -> tuple[State, State]:
    g = torch.Generator().manual_seed(seed)
    x0, x1 = (
        {k: torch.randn(4, *s, generator=g, dtype=torch.float64) for k, s in {"a": (3, 2), "b": ()}.items()}
        for _ in range(2)
    )
    return x0, x1


def close(x: State, y: State, **tolerance: float) -> None:
    assert x.keys() == y.keys()
    for key in x:
        torch.testing.assert_close(x[key], y[key], **tolerance)


def test_the_path_starts_at_the_noise_and_ends_at_the_data() -> None:
    x0, x1 = pair()
    close(interpolate(x0, x1, torch.zeros(4)), x0)
    close(interpolate(x0, x1, torch.ones(4)), x1)


def test_every_sample_has_its_own_time() -> None:
    x0, x1 = pair()
    t = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    x = interpolate(x0, x1, t)
    for i in range(4):
        for key in x:
            torch.testing.assert_close(x[key][i], (1 - t[i]) * x0[key][i] + t[i] * x1[key][i])


def test_conditional_velocity_is_the_time_derivative_of_the_path() -> None:
    x0, x1 = pair()
    early, late = torch.full((4,), 0.25, dtype=torch.float64), torch.full((4,), 0.75, dtype=torch.float64)
    before, after = interpolate(x0, x1, early), interpolate(x0, x1, late)
    close(conditional_velocity(x0, x1), {k: (after[k] - before[k]) / 0.5 for k in x0})


@given(st.floats(0, 0.999), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_endpoint_and_velocity_are_each_others_inverse(t: float, seed: int) -> None:
    x, endpoint = pair(seed)
    time = torch.full((4,), t, dtype=torch.float64)
    velocity = endpoint_to_velocity(endpoint, x, time, eps=1e-3)
    close(velocity_to_endpoint(velocity, x, time), endpoint, rtol=1e-9, atol=1e-9)


def test_on_the_path_the_true_endpoint_gives_the_conditional_velocity() -> None:
    x0, x1 = pair()
    t = torch.tensor([0.0, 0.2, 0.7, 0.99], dtype=torch.float64)
    close(endpoint_to_velocity(x1, interpolate(x0, x1, t), t), conditional_velocity(x0, x1))


def test_division_is_bounded_at_the_end() -> None:
    x, endpoint = pair()
    velocity = endpoint_to_velocity(endpoint, x, torch.ones(4, dtype=torch.float64), eps=1e-2)
    close(velocity, {k: (endpoint[k] - x[k]) * 100 for k in x})


def test_a_scalar_time_serves_all_samples() -> None:
    x0, x1 = pair()
    close(interpolate(x0, x1, torch.tensor(0.3)), interpolate(x0, x1, torch.full((4,), 0.3)))
