"""The methods for inverse problems, where their answers are known: of Gaussian data, of lines, of flat pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor

from benchmarks.inverse.problem import Problem, misfit_gradient, steepness
from benchmarks.inverse.rivals import dflow, flowchef, interpolation, ot_ode, pnp_flow, total_variation, wavelets
from molflow.adapters import Adapter
from molflow.adapters.adapter import plain
from molflow.inverse.operators import Blur, Clipped, Identity, Masked, Shrink, gaussian_kernel, low_pass
from molflow.inverse.solve import Recipe, restore


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian(*shape: int, std: float = 1.0) -> Adapter:
    """u(t, x) of data N(0, std²), in closed form, in float64."""
    def velocity(t: Tensor, x: Tensor) -> Tensor:
        t = t.view(-1, *[1] * (x.dim() - 1))
        return (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2) * x

    return Adapter(plain(velocity), shape, dtype=torch.float64)


def gain(t: float, std: float) -> float:
    """E[x_1 | x_t] = gain x_t."""
    return t * std**2 / (t**2 * std**2 + (1 - t) ** 2)


LEFT = torch.arange(16).view(1, 1, 4, 4) % 4 < 2


def test_ot_ode_draws_from_the_posterior_of_standard_normal_data() -> None:
    """For which r² is the variance of x_1 given x_t, and the correction exact."""
    clean, noise = draw(400, 1, 4, 4), 0.5
    measured = LEFT * (clean + noise * draw(400, 1, 4, 4, seed=1))
    made = ot_ode.solve(Problem(gaussian(1, 4, 4), Masked(LEFT), measured, noise), seed=2, begin=0.04, steps=100)
    assert made.nfe == 3 * 96
    off = (made.signal - measured / (1 + noise**2))[:, LEFT[0]]
    assert off.mean().abs() < 0.03
    assert off.std().item() == pytest.approx((noise**2 / (1 + noise**2)) ** 0.5, rel=0.1)
    unknown = made.signal[:, ~LEFT[0]]
    assert unknown.mean().abs() < 0.05 and unknown.std().item() == pytest.approx(1, rel=0.05)


def test_pnp_flow_is_its_recursion() -> None:
    """With a linear denoiser the noises cancel in the mean: m = gain t (m - (1 - t)^alpha A'(A m - y))."""
    std, steps, alpha = 0.5, 30, 0.3
    measured = (LEFT * 0.8).expand(300, 1, 4, 4).double()
    made = pnp_flow.solve(Problem(gaussian(1, 4, 4, std=std), Masked(LEFT), measured, 0.1), seed=0, alpha=alpha,
                          steps=steps)
    known = unknown = 0.8
    for step in range(steps):
        t = step / steps
        known = gain(t, std) * t * (known - (1 - t) ** alpha * (known - 0.8))
        unknown = gain(t, std) * t * unknown
    assert made.nfe == 5 * steps
    assert made.signal[:, LEFT[0]].mean().item() == pytest.approx(known, abs=0.01)
    assert made.signal[:, ~LEFT[0]].mean().item() == pytest.approx(unknown, abs=0.01)


def test_flowchef_leaves_alone_what_is_not_measured_and_meets_what_is() -> None:
    adapter = gaussian(1, 4, 4, std=0.5)
    measured = LEFT * 0.5 * draw(6, 1, 4, 4)
    made = flowchef.solve(Problem(adapter, Masked(LEFT), measured, 0.01), seed=3, rate=1.0, steps=100)
    start = adapter.space(6).noise(torch.Generator().manual_seed(3))
    free = adapter.flow(100, "euler")(start, torch.arange(6))["x"]
    torch.testing.assert_close(made.signal * ~LEFT, free * ~LEFT)
    assert (LEFT * made.signal - measured).abs().max() < 0.05 < (LEFT * free - measured).abs().max()


def test_dflow_is_the_shipped_one_with_its_published_recipe() -> None:
    problem = Problem(gaussian(1, 4, 4, std=0.5), Masked(LEFT), LEFT * draw(2, 1, 4, 4), 0.1)
    made = dflow.solve(problem, seed=5, evals=60)
    theirs = restore(problem.adapter, problem.operator, problem.measured, noise=0.1, seed=5, recipe=Recipe())
    assert torch.equal(made.signal, theirs.signal) and made.nfe <= 60 * 3 * 6


def test_total_variation_of_a_picture_is_scikit_images_and_holes_are_filled_flat() -> None:
    noisy = draw(2, 3, 12, 12)
    made = total_variation.solve(Problem(gaussian(3, 12, 12), Identity(), noisy, 0.1), seed=0, weight=0.3).signal
    for picture, wanted in zip(made, noisy, strict=True):
        exact = denoise_tv_chambolle(wanted.numpy(), 0.3, eps=1e-8, max_num_iter=5000, channel_axis=0)
        assert (picture - torch.from_numpy(exact)).square().mean().sqrt() < 0.015
    halves = torch.where(torch.arange(12) < 6, 0.5, -0.5).double().expand(1, 1, 12, 12)
    known = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    known[..., 4:8, 1:4] = False
    made = total_variation.solve(Problem(gaussian(1, 12, 12), Masked(known), known * halves, 0.1), seed=0,
                                 weight=0.003).signal
    assert (made - halves).abs().max() < 0.05


def test_wavelets_keep_what_they_are_made_of_and_drop_noise() -> None:
    assert [wavelets.levels(size) for size in ((28, 28), (32, 32), (4096,), (12, 16))] == [2, 4, 4, 2]
    t = torch.linspace(0, 1, 64, dtype=torch.float64)
    smooth = (torch.sin(6 * t) * torch.ones(1, 1, 64, 1)).mT * t.view(-1, 1)
    noisy = smooth.transpose(2, 3).contiguous().transpose(2, 3) + 0.1 * draw(1, 1, 64, 64)
    for weight, least, most in ((0.0, 0.099, 0.103), (0.3, 0.0, 0.04)):
        made = wavelets.solve(Problem(gaussian(1, 64, 64), Identity(), noisy, 0.1), seed=0, weight=weight).signal
        assert least < (made - smooth).square().mean().sqrt() < most
    flat = torch.full((1, 1, 64, 64), 0.4, dtype=torch.float64)
    made = wavelets.solve(Problem(gaussian(1, 64, 64), Shrink(2), Shrink(2)(flat), 0.1), seed=0, weight=0.1).signal
    torch.testing.assert_close(made, flat)


@pytest.mark.parametrize(("spline", "power"), [(False, 1), (True, 3)])
def test_interpolation_is_exact_for_lines_and_for_cubics(spline: bool, power: int) -> None:
    t = torch.linspace(-1, 1, 64, dtype=torch.float64)
    clean = torch.stack([0.5 * t**power - 0.1, 0.2 - 0.7 * t**power])[:, None]
    known = torch.ones(2, 1, 64, dtype=torch.bool)
    known[0, :, 20:30], known[1, :, 3:9] = False, False
    adapter = gaussian(1, 64)
    made = interpolation.solve(Problem(adapter, Masked(known), clean * known, 0.0), seed=0, spline=spline).signal
    torch.testing.assert_close(made, clean)
    slower = Problem(adapter, Blur(low_pass(2), 2), clean[..., ::2], 0.0)
    made = interpolation.solve(slower, seed=0, spline=spline).signal
    torch.testing.assert_close(made[..., :-1], clean[..., :-1])  # what is behind the last sample is not between two
    clipped = clean.clamp(-0.45, 0.45)
    limit = torch.tensor(0.45, dtype=torch.float64)
    problem = Problem(adapter, Clipped.consistent(clipped, limit), clipped, 0.0)
    places = interpolation.places(problem)
    assert np.array_equal(places, (clipped.abs() < 0.449)[:, 0].numpy())
    assert not interpolation.incomplete(Problem(adapter, Identity(), clean, 0.1)) and interpolation.incomplete(problem)


def test_gradient_and_steepness_of_a_misfit() -> None:
    x, blur = draw(2, 1, 8, 8), Blur(gaussian_kernel(0.8))
    y = draw(2, 1, 8, 8, seed=1)
    at = x.clone().requires_grad_()
    (exact,) = torch.autograd.grad((blur(at) - y).square().sum() / 2, at)
    torch.testing.assert_close(misfit_gradient(blur, y, x), exact)
    matrix = blur(torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)).flatten(1)
    largest = torch.linalg.matrix_norm(matrix, 2).item() ** 2
    assert steepness(blur, x) == pytest.approx(largest, rel=0.01)
    assert steepness(Shrink(2), x) == pytest.approx(1 / 4)
