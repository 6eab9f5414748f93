"""Spectrograms of sound, one below the other."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib import style
from matplotlib.figure import Figure
from torch import Tensor

from molflow.data.speech import RATE

FRAME, HOP = 128, 16


def spectrograms(lines: Mapping[str, Tensor]) -> bytes:
    """PNG of clips (L,), all as long as the longest in time: a shorter one has a lower sampling rate."""
    length = max(map(len, lines.values()))
    with style.context("default"):  # whatever the user has set
        figure = Figure(figsize=(8, 1.25 * len(lines)), layout="constrained")
        for axes, (name, clip) in zip(figure.subplots(len(lines), 1, sharex=True, squeeze=False)[:, 0], lines.items(),
                                      strict=True):
            factor = round(length / len(clip))
            axes.specgram(clip.numpy() + 1e-6, NFFT=FRAME // factor, noverlap=(FRAME - HOP) // factor,
                          Fs=RATE / factor, vmin=-120, vmax=-50)
            axes.set(ylim=(0, RATE / 2), yticks=[0, RATE // 4, RATE // 2])
            axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set_xlabel("s; heights in Hz")
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=100)
    return png.getvalue()
