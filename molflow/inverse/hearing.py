"""The recording that is nearest to what may have been said, as it is heard: in the level of each spectral bin.

The mean of all recordings that would have been measured so has the least squared error, and sounds dull: where only the
loudness of what is missing is known and not its phase, it is silent. Ears tell levels. So recordings are drawn from the
posterior along the flow's ODE, with the endpoint that heeds the measurement in place of the flow's own (Rozet et al.
2024, arXiv 2405.13712), and each bin of the spectrogram gets its mean level over the draws, in decibels (Ephraim &
Malah 1985, IEEE Trans. ASSP 33, 443: the estimate of least error in the log-spectrum), with phases that begin as those
of the mean and are made consistent (Griffin & Lim 1984, IEEE Trans. ASSP 32, 236).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from molflow.adapters.adapter import Adapter
from molflow.inverse.operators import Operator
from molflow.inverse.posterior import Averaged, corrected, evaluations, heeded
from molflow.inverse.solve import assumed_variance, plain_signal, root_mean_square

FRAME, HOP = 256, 64
"""Samples of a spectrum, 32 ms at the rate of the shipped prior, and from one to the next."""

SILENCE = 1e-6
"""Power of a bin below which levels are the same: that of noise of 0.001 a sample, where speech has 0.05."""

CONSISTENT = 5
"""Times that a spectrogram is made a sound and gets its levels again."""


@dataclass(frozen=True)
class Listening:
    """How recordings are drawn.

    Attributes:
        draws: recordings that levels are the mean over.
        steps: times at which each is led.
        begin, end: the first time, at which x is mostly noise, and the last.
        solves: steps of conjugate gradients at each time.
    """

    draws: int = 8
    steps: int = 12
    begin: float = 0.3
    end: float = 0.98
    solves: int = 1


@torch.no_grad()
def listen(adapter: Adapter, operator: Operator, measured: Tensor, *, noise: float, seed: int = 0,
           recipe: Listening | None = None) -> Averaged:
    """The recordings of mean level for B inverse problems at once; arguments as of `average`.

    The path is the mean of the draws at each time; the last is the recording.
    """
    r = recipe or Listening()
    measured = measured.to(adapter.device, adapter.dtype)
    variance = assumed_variance(measured, noise)
    rng = torch.Generator(adapter.device).manual_seed(seed)
    guess = adapter.encode(operator.guess(measured, tuple(plain_signal(adapter).shape[2:])))
    drawn = [draw(adapter, operator, measured, variance, guess, rng, r) for _ in range(r.draws)]
    path = [torch.stack(at_a_time).mean(0) for at_a_time in zip(*drawn, strict=True)]
    levelled = mean_level(torch.stack([way[-1] for way in drawn]))
    signal = corrected(operator, measured, variance, levelled)
    nfe = r.draws * r.steps * evaluations(operator, r.solves)
    return Averaged(signal, [*path[:-1], signal], root_mean_square(operator(signal) - measured), nfe)


def draw(adapter: Adapter, operator: Operator, measured: Tensor, variance: Tensor, guess: Tensor,
         rng: torch.Generator, recipe: Listening) -> list[Tensor]:
    """One recording (B, C, L) for each problem, of all that would be measured so, begun from a guess at endpoints:
    what it is expected to be at each time; it is the last."""
    noises = adapter.space(len(measured)).noise(rng)["x"]
    end = guess
    way = []
    for t in torch.linspace(max(adapter.begin, recipe.begin), recipe.end, recipe.steps).tolist():
        x = t * end + (1 - t) * noises  # a step of the ODE: back goes what noise was found in x at the time before
        end = heeded(adapter, operator, measured, variance, t, x, recipe.solves, rng)
        noises = (x.detach() - t * end) / (1 - t)
        way.append(adapter.decode(end))
    way[-1] = adapter.decode(corrected(lambda x: operator(adapter.decode(x)), measured, variance, end))
    return way


def mean_level(draws: Tensor) -> Tensor:
    """(K, B, C, L) recordings -> (B, C, L) whose spectrogram has their mean level, in decibels, in every bin."""
    window = torch.hann_window(FRAME, dtype=draws.dtype, device=draws.device)

    def spectra(x: Tensor) -> Tensor:
        return torch.stft(x.flatten(0, -2), FRAME, HOP, window=window, normalized=True, pad_mode="constant",
                          return_complex=True)

    levels = (spectra(draws).abs().square() + SILENCE).log().unflatten(0, draws.shape[:-1]).mean(0).flatten(0, 1)
    loudness = (levels.exp() - SILENCE).clamp_min(0).sqrt()
    made = draws.mean(0)
    for _ in range(CONSISTENT):
        heard = torch.polar(loudness, spectra(made).angle())
        made = torch.istft(heard, FRAME, HOP, window=window, normalized=True,
                           length=draws.shape[-1]).view(made.shape)
    return made
