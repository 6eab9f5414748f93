"""Diffusion models as flows, against closed forms and against diffusers' own samplers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, UNet2DModel
from torch import Tensor

from molflow.adapters.diffusion import NoiseTable, flow_field
from molflow.adapters.image import diffusers_unet
from molflow.flow.solvers import integrate

MEAN, STD = 0.7, 0.3
TRAINED = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def said_of_a_gaussian(kind: str, z: Tensor, sigma: Tensor) -> Tensor:
    """What a perfect model of data ~ N(MEAN, STD²) says: linear regression of x_1 and the noise on z."""
    a, b = (1 / (1 + sigma**2)).sqrt()[:, None], (sigma / (1 + sigma**2).sqrt())[:, None]
    gain = (z - a * MEAN) / (a**2 * STD**2 + b**2)
    data, noise = MEAN + a * STD**2 * gain, b * gain
    return {"epsilon": noise, "v_prediction": a * noise - b * data, "sample": data}[kind]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_velocity_is_that_of_the_straight_path(kind: str) -> None:
    """u = m + (t s² - (1 - t)) / (t² s² + (1 - t)²) (x - t m) for Gaussian data."""
    field = flow_field(lambda z, sigma: said_of_a_gaussian(kind, z, sigma), lambda sigma: sigma, kind)
    t = torch.linspace(0.05, 0.98, 40, dtype=torch.float64)
    x = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    velocity, _ = field(t, {"x": x}, None)
    s, late = STD**2, 1 - t[:, None]
    exact = MEAN + (t[:, None] * s - late) / (t[:, None] ** 2 * s + late**2) * (x - t[:, None] * MEAN)
    torch.testing.assert_close(velocity["x"], exact, rtol=1e-9, atol=1e-9)


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="predicts 'score'"):
        flow_field(lambda z, time: z, lambda sigma: sigma, "score")  # type: ignore[arg-type]


def test_the_table_gives_back_its_own_numbers_and_lies_between_them() -> None:
    alphas = DDIMScheduler(**TRAINED).alphas_cumprod
    sigma = ((1 - alphas) / alphas).sqrt()
    table = NoiseTable(alphas)
    torch.testing.assert_close(table(sigma), torch.arange(1000.0), rtol=0, atol=0.02)
    between = table((sigma[100] * sigma[101]).sqrt()[None])
    assert between.item() == pytest.approx(100.5, abs=0.01)
    assert table(torch.tensor([1e-9, 1e9])).tolist() == [0, 999]
    assert table.begin == pytest.approx(1 / (1 + sigma[-1].item()), rel=1e-6)


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16),
                       norm_num_groups=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                       up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4).eval()


def flow_of_levels(unet: UNet2DModel, scheduler: object, sigma: Tensor, z: Tensor) -> Tensor:
    """Euler's method from the VP state z at sigma[0] over these levels, the last of which is 0, in flow time."""
    t = 1 / (1 + sigma.double())
    adapter = diffusers_unet(unet, scheduler)
    start = {"x": z * torch.hypot(t[0], 1 - t[0]).float()}
    with torch.no_grad():
        return integrate(adapter.field, start, grid=t, method="euler").state["x"]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_eulers_method_is_ddim(unet: UNet2DModel, kind: str) -> None:
    scheduler = DDIMScheduler(**TRAINED, prediction_type=kind, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(5)
    z = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x = z
    with torch.no_grad():
        for n in scheduler.timesteps:
            x = scheduler.step(unet(x, n).sample, n, x, eta=0.0).prev_sample
    alphas = scheduler.alphas_cumprod[scheduler.timesteps]
    levels = torch.cat([((1 - alphas) / alphas).sqrt(), torch.zeros(1)])
    torch.testing.assert_close(flow_of_levels(unet, scheduler, levels, z), x, rtol=2e-3, atol=2e-3)


def test_eulers_method_is_the_euler_scheduler_between_the_levels_too(unet: UNet2DModel) -> None:
    scheduler = EulerDiscreteScheduler(**TRAINED, timestep_spacing="linspace", interpolation_type="log_linear",
                                       use_karras_sigmas=True)
    scheduler.set_timesteps(6)
    z = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    first = scheduler.sigmas[0]
    x = z * (1 + first**2).sqrt()
    with torch.no_grad():
        for n in scheduler.timesteps:
            x = scheduler.step(unet(scheduler.scale_model_input(x, n), n).sample, n, x).prev_sample
    torch.testing.assert_close(flow_of_levels(unet, scheduler, scheduler.sigmas, z), x, rtol=2e-3, atol=2e-3)
