"""Spectrograms of sound, one below the other."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
from matplotlib import style
from matplotlib.figure import Figure
from torch import Tensor

from molflow.data.speech import RATE

FRAME, HOP = 128, 16
"""Samples of a spectrum at the full rate, and from one to the next."""

LEVELS = -90, -20
"""Decibels that are shown, from white to black; a spectrum's power is that of a sample."""


def spectrograms(lines: Mapping[str, Tensor]) -> bytes:
    """PNG of clips (L,), all as long as the longest in time: a shorter one has a lower sampling rate."""
    length = max(map(len, lines.values()))
    with style.context("default"):  # whatever the user has set
        figure = Figure(figsize=(8, 1.25 * len(lines)), layout="constrained")
        for axes, (name, clip) in zip(figure.subplots(len(lines), 1, sharex=True, squeeze=False)[:, 0], lines.items(),
                                      strict=True):
            factor = round(length / len(clip))
            frame = FRAME // factor
            spectrum = torch.stft(clip, frame, HOP // factor, window=torch.hann_window(frame), normalized=True,
                                  return_complex=True)
            axes.imshow(10 * (spectrum.abs().square() + 1e-12).log10().numpy(), cmap="Greys", vmin=LEVELS[0],
                        vmax=LEVELS[1], origin="lower", aspect="auto",
                        extent=(0, length / RATE, 0, RATE / factor / 2))
            axes.set(ylim=(0, RATE / 2), yticks=[0, RATE // 4, RATE // 2])
            axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set_xlabel("s; heights in Hz")
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=100)
    return png.getvalue()
