"""The adapters of pictures make what the libraries' own samplers make, and gradients come back to the source."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler, KarrasVeScheduler, UNet2DModel
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper
from torch import Tensor, nn
from torchdiffeq import odeint

from molflow.adapters import Adapter, image
from molflow.flow.solvers import integrate

PROMPT = "a photo of a cat"


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def pictures(adapter: Adapter, x0: Tensor, grid: Tensor) -> Tensor:
    """As pipelines return them, in [0, 1]."""
    with torch.no_grad():
        return (adapter.decode(integrate(adapter.field, {"x": x0}, grid=grid, method="euler").state["x"]) / 2
                + 0.5).clamp(0, 1)


def slope_is_right(adapter: Adapter, x0: Tensor) -> None:
    """The gradient of the whole line, noise to picture, against a central difference."""
    run = adapter.flow(3, gradients=True)
    index = torch.arange(len(x0))
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(adapter.decode(x0).shape, generator=generator)

    def loss(x: Tensor) -> Tensor:
        return (weight * adapter.decode(run({"x": x}, index)["x"])).sum()

    start = x0.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(start), start)
    along = gradient / gradient.norm()
    with torch.no_grad():
        slope = (loss(x0 + 1e-2 * along) - loss(x0 - 1e-2 * along)) / 2e-2
    torch.testing.assert_close(slope, gradient.norm(), rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_stable_diffusion_3(stable_diffusion_3, guidance: float) -> None:
    pipe, x0 = stable_diffusion_3, noise(1, 4, 8, 8)
    made = pipe(PROMPT, height=16, width=16, num_inference_steps=3, guidance_scale=guidance, latents=x0,
                negative_prompt="a bell", output_type="pt").images
    adapter = image.stable_diffusion_3(pipe, PROMPT, negative="a bell", guidance=guidance, height=16, width=16)
    assert adapter.shape == (4, 8, 8) and adapter.shift == 3.0
    torch.testing.assert_close(pictures(adapter, x0, 1 - pipe.scheduler.sigmas), made, rtol=1e-4, atol=1e-4)
    slope_is_right(adapter, x0)


def test_flux(flux) -> None:
    x0 = noise(1, 4, 8, 8)
    packed = flux._pack_latents(x0, 1, 4, 8, 8)
    made = flux(PROMPT, height=16, width=16, num_inference_steps=3, guidance_scale=2.0, latents=packed,
                output_type="pt").images
    adapter = image.flux(flux, PROMPT, guidance=2.0, height=16, width=16)
    torch.testing.assert_close(pictures(adapter, x0, 1 - flux.scheduler.sigmas), made, rtol=1e-4, atol=1e-4)
    # its own grid is the scheduler's too: 3 equal steps, moved by the number of tokens
    assert adapter.shift == pytest.approx(math.exp(0.5 + (16 - 256) * (1.15 - 0.5) / (4096 - 256)), rel=1e-6)
    torch.testing.assert_close(adapter.grid(3).float(), 1 - flux.scheduler.sigmas.cpu(), rtol=1e-5, atol=1e-5)
    slope_is_right(adapter, x0)


def test_stable_diffusion(stable_diffusion) -> None:
    pipe, z = stable_diffusion, noise(1, 4, 8, 8)
    made = pipe(PROMPT, height=16, width=16, num_inference_steps=4, guidance_scale=3.0, latents=z,
                negative_prompt="a bell", output_type="pt").images
    adapter = image.stable_diffusion(pipe, PROMPT, negative="a bell", guidance=3.0, height=16, width=16)
    alphas = pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps]
    grid = torch.cat([1 / (1 + ((1 - alphas) / alphas).sqrt()), torch.ones(1)]).double()
    start = z * torch.hypot(grid[0], 1 - grid[0]).float()
    torch.testing.assert_close(pictures(adapter, start, grid), made, rtol=2e-3, atol=2e-3)
    assert adapter.grid(4)[0].item() == pytest.approx(adapter.begin) == pytest.approx(grid[0].item(), rel=1e-5)
    slope_is_right(adapter, z)


def test_sizes_that_a_model_cannot_make_are_refused(flux, stable_diffusion_3) -> None:
    for make in (lambda: image.flux(flux, PROMPT, height=18, width=16),
                 lambda: image.stable_diffusion_3(stable_diffusion_3, PROMPT, height=16, width=17)):
        with pytest.raises(ValueError, match="multiples of"):
            make()


class Drift(nn.Module):
    """u(t, x) of data N(m, s²): with it every solver's answer is known."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.variance = nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor(0.25))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, *[1] * (x.dim() - 1))
        late = 1 - t
        return self.mean + (t * self.variance - late) / (t**2 * self.variance + late**2) * (x - t * self.mean)


def test_flow_matching() -> None:
    """The library's wrapper and its own solver; both end at m + s x_0."""
    model, x0 = ModelWrapper(Drift()), noise(2, 1, 4, 4)
    adapter = image.flow_matching(model, (1, 4, 4))
    assert not any(p.requires_grad for p in model.parameters())
    theirs = ODESolver(velocity_model=model).sample(x_init=x0, step_size=0.02, method="midpoint")
    with torch.no_grad():
        ours = adapter.flow(50)({"x": x0}, torch.arange(2))["x"]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, 0.4 + 0.5 * x0, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(adapter.invert(ours, 50)["x"], x0, rtol=1e-3, atol=2e-3)


def test_torchcfm() -> None:
    """Its own U-Net, which torchcfm integrates as dx/dt = model(t, x)."""
    unets = pytest.importorskip("torchcfm.models.unet", reason="pip install --no-deps torchcfm")
    torch.manual_seed(0)
    unet = unets.UNetModel(dim=(1, 8, 8), num_channels=32, num_res_blocks=1, channel_mult=[1, 2], num_heads=2,
                     num_head_channels=16, attention_resolutions="4").eval()
    for p in unet.parameters():
        nn.init.normal_(p, std=0.1)  # its last layer starts at zero
    adapter, x0 = image.torchcfm(unet, (1, 8, 8)), noise(1, 1, 8, 8)
    with torch.no_grad():
        theirs = odeint(lambda t, x: unet(t, x), x0, torch.linspace(0, 1, 4), method="euler")[-1]
        ours = adapter.flow(3, "euler")({"x": x0}, torch.arange(1))["x"]
    assert (theirs - x0).abs().max() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_is_no_flow_is_refused() -> None:
    unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=2, block_out_channels=(8,), norm_num_groups=4,
                       layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
    with pytest.raises(ValueError, match="must say as many"):
        image.diffusers_unet(unet, DDPMScheduler())
    with pytest.raises(ValueError, match="KarrasVeScheduler is neither"):
        image.scheduled(unet, KarrasVeScheduler())
