"""Flows of pictures: our own small priors, models of diffusers, of Meta's flow_matching and of torchcfm.

Pictures are (B, C, H, W) in [-1, 1]. The models of other libraries are used, not imported: whoever has one has its
library. Their parameters are frozen, because it is the source point that is optimised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from molflow.adapters.adapter import Adapter, plain
from molflow.adapters.borrowed import guided, of, scheduled, shift_of
from molflow.adapters.prior import load
from molflow.flow.solvers import VelocityField


def prior(name: str | Path, size: tuple[int, int] | None = None, device: str = "cpu") -> Adapter:
    """The shipped prior ``digits`` or ``photos``, or the one in a file of weights.

    Args:
        size: height and width, multiples of the network's ``divisor``; by default those that it was trained on. The
            network is convolutional: it works on any.

    Raises:
        WeightsError: there is no such prior, or it is not one of pictures.
    """
    return load(name, 2, size, device).adapter


def flow_matching(model: nn.Module, shape: tuple[int, int, int], **extras: Any) -> Adapter:
    """A model of Meta's flow_matching, called as model(x=x, t=t, **extras), trained on the path ``CondOT``.

    One trained on another path becomes one on this path by the library's ``ScheduleTransformedModel``.
    """
    return of(model, plain(lambda t, x: model(x=x, t=t, **extras)), shape)


def torchcfm(model: nn.Module, shape: tuple[int, int, int], **extras: Any) -> Adapter:
    """A model of torchcfm, such as its ``UNetModelWrapper``, called as model(t, x, **extras)."""
    return of(model, plain(lambda t, x: model(t, x, **extras)), shape)


def diffusers_unet(unet: Any, scheduler: Any) -> Adapter:
    """A pixel U-Net of diffusers (``UNet2DModel``) with the scheduler that it was trained with.

    Args:
        scheduler: one with ``alphas_cumprod`` (DDPM, DDIM, ...) whose configuration says what is predicted, or a
            flow-matching one.

    Raises:
        ValueError: a scheduler of another kind, or a U-Net that predicts its variance too.
    """
    c = unet.config
    if c.out_channels != c.in_channels:
        raise ValueError(f"a U-Net of {c.in_channels} channels must say as many, not {c.out_channels}")
    height, width = (c.sample_size,) * 2 if isinstance(c.sample_size, int) else c.sample_size
    field, begin = scheduled(lambda x, time: unet(x, time).sample, scheduler)
    return of(unet, field, (c.in_channels, height, width), begin=begin)


def stable_diffusion(pipe: Any, prompt: str, *, negative: str = "", guidance: float = 7.5, height: int = 512,
                     width: int = 512) -> Adapter:
    """``StableDiffusionPipeline``: a latent U-Net that predicts noise or v, text conditions, an autoencoder.

    Args:
        guidance: weight of the prompt over ``negative`` (classifier-free guidance); 1 for none.
    """
    with torch.no_grad():
        wanted, unwanted = pipe.encode_prompt(prompt, pipe.device, 1, True, negative)

    def model(z: Tensor, time: Tensor) -> Tensor:
        return guided(lambda x, t, text: pipe.unet(x, t, encoder_hidden_states=text).sample, z, time,
                      [(wanted,), (unwanted,)], guidance)

    field, begin = scheduled(model, pipe.scheduler)
    return _latent(pipe, pipe.unet, field, height, width, begin)


def stable_diffusion_3(pipe: Any, prompt: str, *, negative: str = "", guidance: float = 7.0, height: int = 1024,
                       width: int = 1024) -> Adapter:
    """``StableDiffusion3Pipeline``: a latent flow-matching transformer, text conditions, an autoencoder.

    Args:
        guidance: weight of the prompt over ``negative`` (classifier-free guidance); 1 for none.
    """
    with torch.no_grad():
        wanted, unwanted, pooled, unpooled = pipe.encode_prompt(prompt, None, None, negative_prompt=negative,
                                                                device=pipe.device)

    def speak(x: Tensor, time: Tensor, text: Tensor, summary: Tensor) -> Tensor:
        return pipe.transformer(hidden_states=x, timestep=time, encoder_hidden_states=text,
                                pooled_projections=summary).sample

    field, begin = scheduled(lambda x, time: guided(speak, x, time, [(wanted, pooled), (unwanted, unpooled)],
                                                    guidance), pipe.scheduler)
    tokens = height * width // (pipe.vae_scale_factor * pipe.transformer.config.patch_size) ** 2
    return _latent(pipe, pipe.transformer, field, height, width, begin, tokens)


def flux(pipe: Any, prompt: str, *, guidance: float = 3.5, height: int = 1024, width: int = 1024) -> Adapter:
    """``FluxPipeline``: a latent flow-matching transformer that was taught its guidance, an autoencoder."""
    _check(height, width, 2 * pipe.vae_scale_factor)
    rows, columns = height // (2 * pipe.vae_scale_factor), width // (2 * pipe.vae_scale_factor)
    with torch.no_grad():
        text, summary, places = pipe.encode_prompt(prompt, None, device=pipe.device)
    ids = pipe._prepare_latent_image_ids(1, rows, columns, pipe.device, text.dtype)

    def model(x: Tensor, time: Tensor) -> Tensor:
        size = len(x)
        weight = x.new_full((size,), guidance) if pipe.transformer.config.guidance_embeds else None
        packed = pipe._pack_latents(x.to(text.dtype), size, x.shape[1], 2 * rows, 2 * columns)
        said = pipe.transformer(hidden_states=packed, timestep=time / 1000, guidance=weight,
                                pooled_projections=summary.expand(size, -1), txt_ids=places, img_ids=ids,
                                encoder_hidden_states=text.expand(size, -1, -1)).sample
        return pipe._unpack_latents(said.to(x.dtype), height, width, pipe.vae_scale_factor)

    field, begin = scheduled(model, pipe.scheduler)
    return _latent(pipe, pipe.transformer, field, height, width, begin, rows * columns)


def _latent(pipe: Any, network: nn.Module, field: VelocityField, height: int, width: int, begin: float,
            tokens: int = 0) -> Adapter:
    """The flow of an autoencoder's latents, ``tokens`` of them, as the pipeline ``pipe`` makes pictures of them."""
    vae, c = pipe.vae.requires_grad_(False), pipe.vae.config
    factor = 2 ** (len(c.block_out_channels) - 1)
    _check(height, width, factor)
    offset, scale = c.shift_factor or 0.0, c.scaling_factor

    def decode(x: Tensor) -> Tensor:
        return vae.decode((x / scale + offset).to(vae.dtype)).sample.float()

    def encode(picture: Tensor) -> Tensor:
        return (vae.encode(picture.to(vae.dtype)).latent_dist.mode().float() - offset) * scale

    network.requires_grad_(False)
    return Adapter(field, (c.latent_channels, height // factor, width // factor), decode, encode, begin,
                   shift_of(pipe.scheduler, tokens), pipe.device)


def _check(height: int, width: int, factor: int) -> None:
    if height % factor or width % factor:
        raise ValueError(f"height and width must be multiples of {factor} for this model, got {height} and {width}")
