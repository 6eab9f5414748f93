"""Inverse problems as benchmarks: the figures by hand, what is measured, and the real run with tiny priors."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import audio_inverse, image_inverse
from benchmarks.inverse import metrics, pictures, sounds
from benchmarks.inverse.problem import Method, Problem, Solved
from benchmarks.inverse.race import row, solved, tuned
from benchmarks.inverse.reporting import standing
from benchmarks.record import execute
from molflow.adapters import Adapter
from molflow.adapters.adapter import plain
from molflow.data.signals import SignalStore
from molflow.data.store import DataError
from molflow.inverse.operators import Identity, Masked
from molflow.nn.unet import UNet, UNetConfig
from molflow.nn.weights import Card, save_weights

CLIP = 4096


def speech_like(count: int) -> Tensor:
    """(count, 1, CLIP) noise with a slow rhythm, as syllables have it."""
    noise = torch.randn(count, CLIP, generator=torch.Generator().manual_seed(0))
    t = torch.arange(count * CLIP).view(count, CLIP) / 8000
    return (0.05 * noise * torch.sin(2 * math.pi * 2 * t).clamp_min(0.02))[:, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained priors, and data sets of noise that are prepared as the real ones are."""
    folder = tmp_path_factory.mktemp("inverse")
    torch.manual_seed(0)
    for name, config, size in (("digits", UNetConfig(width=16, blocks=1), 28),
                               ("photos", UNetConfig(channels=3, width=16, blocks=1), 32),
                               ("speech", UNetConfig(dims=1, width=16, blocks=1, patch=4), CLIP)):
        settings = {"size": size, "emphasis": 0.0, "scale": 1.0}
        save_weights(folder / f"{name}.safetensors", UNet(config), Card("signal", vars(config), {"settings": settings}))
    data = folder / "data"
    data.mkdir()
    for name, shape in (("digits", (20, 1, 28, 28)), ("photos", (2, 3, 60, 70))):
        pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)
        SignalStore([pixels], [pixels.clone()], "noise").save(data / f"{name}.safetensors")
    clips = (speech_like(12) * 32767).to(torch.int16)
    SignalStore([clips], [clips.clone()], "rhythms").save(data / "speech.safetensors")
    return folder


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLFLOW_DATA", str(folder / "data"))


def test_psnr_ssim_and_flip() -> None:
    clean = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    off = clean + torch.tensor([0.2, 0.02, 0.0]).view(3, 1, 1, 1)
    decibels = metrics.psnr(off, clean)
    assert decibels[:2].tolist() == pytest.approx([20, 40], abs=1e-3) and decibels[2] == 120
    assert metrics.psnr(clean + 5, torch.ones_like(clean)).tolist() == [120] * 3  # what is off the scale is cut off
    for figure, best in ((metrics.ssim, 1.0), (metrics.flip, 0.0)):
        noise = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))
        worse = clean[0] + noise * torch.tensor([0.3, 0.03, 0.0]).view(3, 1, 1, 1)
        values = figure(worse, clean[:1].expand(3, -1, -1, -1))
        assert values[2].item() == pytest.approx(best, abs=1e-6)
        assert abs(values[0] - best) > abs(values[1] - best) > 0
    black, white = -torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    assert metrics.flip(black, white).item() > 0.9


def test_figures_of_sound() -> None:
    t = torch.arange(CLIP) / 8000
    clean = 0.1 * torch.sin(2 * math.pi * 440 * t).repeat(2, 1)[:, None]
    half = torch.arange(CLIP) < CLIP // 2
    off = clean * torch.where(half, 0.9, 1.1)
    assert metrics.snr(off, clean, half[None, None]).tolist() == pytest.approx([20, 20], abs=1e-3)
    silenced = off[:1] * half
    assert metrics.snr(silenced, clean[:1], ~half[None, None]).item() == pytest.approx(0, abs=0.1)
    noise = 0.1 * torch.randn(2, 1, CLIP, generator=torch.Generator().manual_seed(0))
    assert metrics.log_spectral_distance(noise, noise).tolist() == [0, 0]
    fainter = metrics.log_spectral_distance(noise / 10, noise)
    assert fainter.tolist() == pytest.approx([20, 20], abs=1)  # less where nothing is heard


def test_stoi_is_best_of_equals() -> None:
    clean = speech_like(8)
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    assert metrics.stoi(clean, clean) > 0.999 > 0.9 > metrics.stoi(noisy, clean)


def still(*shape: int) -> Adapter:
    return Adapter(plain(lambda t, x: torch.zeros_like(x)), shape)


@pytest.mark.parametrize("task", pictures.TASKS)
def test_what_is_measured_of_pictures(task: str) -> None:
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    problem = pictures.problem(task, x, still(3, 32, 32), seed=1)
    off = problem.operator(x) - problem.measured
    noisy = off[off != 0]
    if isinstance(problem.operator, Masked):
        share = problem.operator.mask.float().mean((1, 2, 3))
        assert (off[~problem.operator.mask.expand_as(x)] == 0).all()
        wanted = [0.3] * 4 if "random" in task else [1 - (13 / 32) ** 2] * 4
        assert share.tolist() == pytest.approx(wanted, abs=0.05)
    assert noisy.std().item() == pytest.approx(problem.noise, rel=0.1)
    if not problem.operator.linear:
        assert problem.measured.abs().max() == 1 and 0.2 < (off == 0).float().mean() < 0.7
    assert torch.equal(pictures.problem(task, x, still(3, 32, 32), seed=1).measured, problem.measured)
    few = problem.select(torch.tensor([2]))
    torch.testing.assert_close(few.operator(x[2:3]), problem.operator(x)[2:3])


@pytest.mark.parametrize("task", sounds.TASKS)
def test_what_is_measured_of_sound(task: str) -> None:
    rng = torch.Generator().manual_seed(0)
    x = 0.05 * torch.randn(4, 1, 4096, generator=rng) * (torch.arange(4096) < 3000)
    problem = sounds.problem(task, x, still(1, 4096), seed=1)
    missing = sounds.missing(problem)
    off = (problem.operator(x) - problem.measured)
    if isinstance(problem.operator, Masked):
        lengths = missing.sum((1, 2))
        assert (lengths >= 160).all() and (lengths <= 3 * 320).all() and not missing[..., 3320:].any()
        off = off[~missing]
    elif task == "declipping":
        assert (x.abs()[missing] > 0.1 * x.abs().max()).all() and 0.05 < missing.float().mean() < 0.6
        off = off[~missing.expand_as(off)]
    else:
        assert missing.all()
    assert off.std().item() == pytest.approx(problem.noise, rel=0.15)


def test_validation_is_not_reported() -> None:
    clean, other = pictures.clean("digits", 12, seed=3)
    assert len(clean) == 12 and len(other) == 8 and not (clean[:, None] == other).flatten(2).all(2).any()
    with pytest.raises(ValueError, match="20 held-out digits"):
        pictures.clean("digits", 13, seed=3)
    with pytest.raises(ValueError, match="digits or photos"):
        pictures.clean("cats", 1, seed=0)
    clips, others = sounds.clean(4, CLIP, seed=0)
    assert clips.shape == (4, 1, CLIP) and others.shape == (8, 1, CLIP)
    with pytest.raises(ValueError, match="12 clips"):
        sounds.clean(5, CLIP, seed=0)


def test_photo_patches_are_of_other_photographs() -> None:
    """Of those that libraries ship, in natural colours: neighbours alike, and no two patches the same."""
    clean, other = pictures.clean("photos", 16, seed=0)
    assert clean.shape == (16, 3, 32, 32) and other.shape == (8, 3, 32, 32) and clean.abs().max() <= 1
    steps = clean.diff(dim=3).square().mean((1, 2, 3)).sqrt()
    assert steps.median() < 0.15 < other.diff(dim=3).square().mean().sqrt()
    assert torch.pdist(clean.flatten(1)).min() > 1


def test_nothing_prepared_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLFLOW_DATA", str(tmp_path))
    with pytest.raises(DataError, match="data prepare digits"):
        pictures.clean("digits", 2, seed=0)


def test_knobs_are_chosen_by_validation_and_what_falls_apart_counts() -> None:
    x = torch.rand(3, 1, 8, 8) - 0.5
    problem = Problem(still(1, 8, 8), Identity(), x, 0.1)

    def blurred(problem: Problem, *, seed: int, share: float, more: float = 0) -> Solved:
        return Solved(problem.measured * (share + more), 7)

    method = Method("half", blurred, ({"share": 0.3}, {"share": 0.8}, {"share": math.nan}), ({}, {"more": 0.1}))
    assert tuned(method, problem, x, image_inverse.judge, "psnr", 0) == {"share": 0.8}
    found = row(method, {"share": 0.8, "more": 0.1}, problem, x, image_inverse.judge, image_inverse.show, 0)
    assert found["psnr"] == pytest.approx(metrics.psnr(0.9 * x, x).mean().item()) and found["nfe"] == 7
    assert found["misfit"] == pytest.approx(x.flatten(1).square().mean(1).sqrt().mean().item(), rel=1e-4)
    assert torch.equal(solved(method, problem, {"share": math.nan}, 0).signal, torch.zeros_like(x))


def quick(methods: dict[str, Method], *names: str) -> dict[str, Method]:
    """Some of the methods, with a single small effort."""
    effort = {key: 2 if key == "draws" else 1 for key in methods["molflow"].efforts[0]}
    efforts = {"molflow": effort, "ot_ode": {"steps": 3}}
    return {name: dataclasses.replace(methods[name], grid=methods[name].grid[:1], efforts=(efforts.get(name, {}),))
            for name in names}


def test_standing_is_counted_from_the_last_rows() -> None:
    def of(figure: float, seconds: float) -> list[dict[str, float]]:
        return [{"psnr": 99.0, "cpu_seconds": 9.0}, {"psnr": figure, "cpu_seconds": seconds}]

    tasks = {"a": {"molflow": of(30, 1), "x": of(28, 10)}, "b": {"molflow": of(20, 3), "x": of(21, 10), "y": of(22, 1)}}
    assert standing(tasks, "psnr") == {"least_ahead": {"x": -1, "y": -2}, "most_time": {"x": 0.3, "y": 3.0},
                                       "most_behind": 2, "share_best": 0.5}


def test_pictures_in_a_real_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_inverse, "METHODS", quick(image_inverse.METHODS, "molflow", "ot_ode"))
    options = {"n": 2, "weights": folder}
    record = execute("image-inverse", image_inverse, tmp_path, options)
    results = record["results"]
    assert list(results["tasks"]) == list(pictures.TASKS) and set(results["memory_mb"]) == {"molflow", "ot_ode"}
    for task, methods in results["tasks"].items():
        assert list(methods) == (["molflow"] if task == "HDR" else ["molflow", "ot_ode"])
        for measured in methods.values():
            assert {"psnr", "ssim", "flip", "misfit", "psnr_standard_error"} <= set(measured[0])
            assert measured[0]["cpu_seconds"] > 0 and "shown" not in measured[0]
    for some in results["standing"].values():
        assert set(some["least_ahead"]) == {"ot_ode"} == set(some["most_time"])
    assert len(list(tmp_path.glob("*.png"))) == 1 + len(pictures.TASKS)
    page = (tmp_path / "image-inverse.md").read_text()
    assert "| OT-ODE |" in page and "super-resolution ×4" in page
    again = execute("image-inverse", image_inverse, tmp_path, options, resume=True)
    assert again["results"] == results


def test_every_method_restores_photos(folder: Path) -> None:
    """With what it spends least, in colour."""
    tasks, _ = image_inverse.problems("photos", 1, 0, folder)
    for task in ("super-resolution ×2", "HDR"):
        problem, clean = tasks[task]
        for method in image_inverse.METHODS.values():
            if method.applies(problem):
                few = {key: min(value, 2) for key, value in method.efforts[0].items()}
                made = solved(method, problem, {**method.grid[0], **few}, 0).signal
                assert made.shape == clean.shape and made.isfinite().all()


def test_sound_in_a_real_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_inverse, "METHODS", quick(audio_inverse.METHODS, "molflow", "spline", "linear"))
    results = execute("audio-inverse", audio_inverse, tmp_path, {"n": 4, "weights": folder})["results"]
    assert list(results["tasks"]) == list(sounds.TASKS)
    assert list(results["tasks"]["denoising"]) == ["molflow"]  # nothing to interpolate
    assert set(results["standing"]["declipping"]["level_share"]) == {"spline", "linear"}
    gaps = results["tasks"]["gaps of 20 to 40 ms"]
    assert gaps["spline"][0]["snr_of_all"] > gaps["spline"][0]["snr"]
    assert len(list(tmp_path.glob("*.png"))) == 1 + len(sounds.TASKS)
