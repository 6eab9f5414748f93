"""Before and after, side by side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from molflow.inverse.pictures import Picture
from molflow.inverse.sounds import Sound

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compare_pictures(path: Path, before: Picture, after: Picture) -> None:
    """Two pictures, one size of print."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.2), layout="constrained")
    for axes, picture, title in zip(figure.subplots(1, 2), (before, after), ("before", "after"), strict=True):
        pixels = ((picture.pixels.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
        axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1,
                    interpolation="nearest")
        axes.set_title(f"{title}, {pixels.shape[1]} × {pixels.shape[0]}")
        axes.set_axis_off()
    _write(path, figure)


def compare_sounds(path: Path, before: Sound, after: Sound) -> None:
    """The first channel as a wave and as a spectrogram, before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    most = float(after.samples.abs().max())
    for column, (sound, title) in enumerate(((before, "before"), (after, "after"))):
        wave = sound.samples[0].numpy()
        top, bottom = panels[0, column], panels[1, column]
        top.plot([n / sound.rate for n in range(len(wave))], wave, linewidth=0.6)
        top.set(title=f"{title}, {sound.rate} Hz", ylim=(-1.05 * most, 1.05 * most), ylabel="of full scale")
        width = max(16, sound.rate // 40)
        bottom.specgram(wave + 1e-6, NFFT=width, noverlap=3 * width // 4, Fs=sound.rate, vmin=-140, vmax=-30)
        bottom.set(xlabel="s", ylabel="Hz", ylim=(0, after.rate / 2))
    _write(path, figure)


def _write(path: Path, figure: Figure) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png", dpi=120)
    os.replace(part, path)
