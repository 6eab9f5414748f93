"""Latent audio of diffusers as a flow, against the library's own preconditioning; emphasis and its inverse."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from scipy.signal import lfilter

from molflow.adapters import audio
from molflow.data.speech import de_emphasise, emphasise


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_stable_audio(stable_audio, guidance: float) -> None:
    """x_1 that the velocity at sigma means is what diffusers' scheduler makes of the transformer's output there."""
    pipe = stable_audio
    adapter = audio.stable_audio(pipe, "a bell", guidance=guidance, seconds=1.0)
    assert adapter.shape == (4, 16)
    generator = torch.Generator().manual_seed(0)
    sigma, x1 = torch.tensor(1.7), torch.randn(2, 4, 16, generator=generator)
    sample = x1 + sigma * torch.randn(2, 4, 16, generator=generator)
    with torch.no_grad():
        text = pipe.encode_prompt("a bell", "cpu", False)
        start, end = pipe.encode_duration(0.0, 1.0, "cpu", False, 1)
        heard, overall = torch.cat([text, start, end], 1), torch.cat([start, end], 2)
        rotary = get_1d_rotary_pos_embed(pipe.rotary_embed_dim, 17, use_real=True, repeat_interleave_real=False)

        def said(words: torch.Tensor) -> torch.Tensor:
            return pipe.transformer(pipe.scheduler.precondition_inputs(sample, sigma),
                                    pipe.scheduler.precondition_noise(sigma).expand(1),
                                    encoder_hidden_states=words.expand(2, -1, -1),
                                    global_hidden_states=overall.expand(2, -1, -1), rotary_embedding=rotary).sample

        unheard = said(torch.zeros_like(heard))
        output = unheard + guidance * (said(heard) - unheard)
        theirs = pipe.scheduler.precondition_outputs(sample, output, sigma)
        t = 1 / (1 + sigma)
        x = t * sample
        velocity, _ = adapter.field(t.expand(2), {"x": x}, None)
        torch.testing.assert_close(x + (1 - t) * velocity["x"], theirs, rtol=1e-4, atol=1e-4)
    assert adapter.begin == pytest.approx(1 / 501)


def test_stable_audio_from_noise_to_sound_and_back_with_gradients(stable_audio) -> None:
    adapter = audio.stable_audio(stable_audio, "a bell", negative="a cat", seconds=1.0)
    space = adapter.space(2)
    source = space.noise(torch.Generator().manual_seed(0))["x"].requires_grad_()
    sound = adapter.decode(adapter.flow(2, gradients=True)({"x": source}, torch.arange(2))["x"])
    assert sound.shape == (2, 2, 100)  # a second at 100 samples a second, two channels
    (gradient,) = torch.autograd.grad(sound.square().sum(), source)
    assert gradient.isfinite().all() and gradient.norm() > 0
    assert adapter.encode(sound.detach()).shape == (2, 4, 16)
    assert math.isclose(adapter.grid(2)[0].item(), adapter.begin)


def test_emphasis_is_a_filter_and_its_inverse_is_exact() -> None:
    x = torch.randn(3, 1, 4096, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loud = emphasise(x, 0.9)
    torch.testing.assert_close(loud, torch.from_numpy(lfilter([1, -0.9], [1], x.numpy())))
    torch.testing.assert_close(de_emphasise(loud, 0.9), x, rtol=1e-10, atol=1e-10)
