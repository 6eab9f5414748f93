"""Flows of sound: our own small prior of speech, latent audio of diffusers, models of flow_matching and of torchcfm.

Sound is (B, channels, samples), within a full scale of [-1, 1]. As in `molflow.adapters.image`, other libraries are
used, not imported, and parameters are frozen.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from molflow.adapters.adapter import Adapter
from molflow.adapters.borrowed import guided
from molflow.adapters.diffusion import flow_field
from molflow.adapters.image import flow_matching, torchcfm
from molflow.adapters.prior import load

__all__ = ["flow_matching", "prior", "stable_audio", "torchcfm"]


def prior(name: str | Path = "speech", samples: int | None = None, device: str = "cpu") -> Adapter:
    """The shipped prior of speech at 8 kHz, or the one in a file of weights.

    Args:
        samples: length of a clip, a multiple of the network's ``divisor``; by default that which it was trained on.

    Raises:
        WeightsError: there is no such prior, or it is not one of sound.
    """
    return load(name, 1, None if samples is None else (samples,), device).adapter


def stable_audio(pipe: Any, prompt: str, *, negative: str | None = None, guidance: float = 7.0,
                 seconds: float | None = None) -> Adapter:
    """``StableAudioPipeline``: a latent diffusion transformer that predicts v, text conditions, an autoencoder.

    Its schedule is sigma from 0.3 to 500 with z = a x_1 + b noise, and its own time is that angle, atan(sigma) 2 / pi.

    Args:
        guidance: weight of the prompt over ``negative``, or over no prompt (classifier-free guidance); 1 for none.
        seconds: length of the signal; by default all that the model makes.
    """
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    c, vae = pipe.transformer.config, pipe.vae.requires_grad_(False)
    samples = c.sample_size * vae.hop_length
    kept = samples if seconds is None else min(samples, round(seconds * vae.config.sampling_rate))
    with torch.no_grad():
        text = pipe.encode_prompt(prompt, pipe.device, guidance != 1 and negative is not None, negative)
        start, end = pipe.encode_duration(0.0, kept / vae.config.sampling_rate, pipe.device, False, 1)
        heard = torch.cat([text[-1:], start, end], 1)
        unheard = torch.zeros_like(heard) if len(text) == 1 else torch.cat([text[:1], start, end], 1)
    overall = torch.cat([start, end], 2)
    rotary = get_1d_rotary_pos_embed(pipe.rotary_embed_dim, c.sample_size + overall.shape[1], use_real=True,
                                     repeat_interleave_real=False)

    def speak(z: Tensor, time: Tensor, words: Tensor, whole: Tensor) -> Tensor:
        return pipe.transformer(z, time, encoder_hidden_states=words, global_hidden_states=whole,
                                rotary_embedding=rotary).sample

    def model(z: Tensor, time: Tensor) -> Tensor:
        return guided(speak, z, time, [(heard, overall), (unheard, overall)], guidance)

    def decode(x: Tensor) -> Tensor:
        return vae.decode(x.to(vae.dtype)).sample.float()[..., :kept]

    def encode(sound: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(sound, (0, samples - sound.shape[-1]))
        return vae.encode(padded.to(vae.dtype)).latent_dist.mode().float()

    pipe.transformer.requires_grad_(False)
    field = flow_field(model, lambda sigma: sigma.atan() * (2 / math.pi), pipe.scheduler.config.prediction_type)
    return Adapter(field, (c.in_channels, c.sample_size), decode, encode, 1 / (1 + pipe.scheduler.config.sigma_max),
                   device=pipe.device)
