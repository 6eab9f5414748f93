"""What a restoration looks like: before and after side by side, and the way from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from molflow.inverse.pictures import Picture
from molflow.inverse.sounds import Sound
from molflow.writing import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAMES_A_SECOND = 2


def compare_pictures(path: Path, before: Picture, after: Picture) -> None:
    """A PNG of two pictures, one size of print."""
    figure = _figure(10, _height(5, after))
    for axes, picture, title in zip(figure.subplots(1, 2), (before, after), ("before", "after"), strict=True):
        _draw_picture(axes, picture, title)
    _write_png(path, figure)


def compare_sounds(path: Path, before: Sound, after: Sound) -> None:
    """A PNG of the first channel as a wave and as a spectrogram, before and after."""
    figure = _figure(10, 6)
    panels = figure.subplots(2, 2, sharex=True)
    for column, (sound, title) in enumerate(((before, "before"), (after, "after"))):
        _draw_sound(panels[0, column], panels[1, column], sound, title, after)
    _write_png(path, figure)


def film_pictures(path: Path, before: Picture, steps: Sequence[Picture]) -> None:
    """A GIF of a picture as it was and step by step."""
    figure = _figure(5, _height(5, before))
    axes = figure.subplots()

    def draw(place: int) -> None:
        axes.clear()
        _draw_picture(axes, (before, *steps)[place], _title(place, len(steps)))

    _write_gif(path, figure, draw, 1 + len(steps))


def film_sounds(path: Path, before: Sound, steps: Sequence[Sound]) -> None:
    """A GIF of the first channel of a recording as it was and step by step."""
    figure = _figure(6, 6)
    top, bottom = figure.subplots(2, 1, sharex=True)

    def draw(place: int) -> None:
        top.clear()
        bottom.clear()
        _draw_sound(top, bottom, (before, *steps)[place], _title(place, len(steps)), steps[-1])

    _write_gif(path, figure, draw, 1 + len(steps))


def _title(place: int, steps: int) -> str:
    return f"step {place} of {steps}" if place else "before"


def _height(width: float, picture: Picture) -> float:
    """Of a panel so wide, in inches: room for the title, too."""
    high, wide = picture.pixels.shape[1:]
    return 0.5 + min(width * high / wide, 3 * width)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_picture(axes: Axes, picture: Picture, title: str) -> None:
    pixels = ((picture.pixels.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1,
                interpolation="nearest")
    axes.set_title(f"{title}, {pixels.shape[1]} × {pixels.shape[0]}")
    axes.set_axis_off()


def _draw_sound(top: Axes, bottom: Axes, sound: Sound, title: str, last: Sound) -> None:
    """To the scale of the last one."""
    wave, most = sound.samples[0].numpy(), float(last.samples.abs().max())
    top.plot([n / sound.rate for n in range(len(wave))], wave, linewidth=0.6)
    top.set(title=f"{title}, {sound.rate} Hz", ylim=(-1.05 * most, 1.05 * most), ylabel="of full scale")
    width = max(16, sound.rate // 40)
    bottom.specgram(wave + 1e-6, NFFT=width, noverlap=3 * width // 4, Fs=sound.rate, vmin=-140, vmax=-30)
    bottom.set(xlabel="s", ylabel="Hz", ylim=(0, last.rate / 2))


def _write_png(path: Path, figure: Figure) -> None:
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _write_gif(path: Path, figure: Figure, draw: Callable[[int], None], frames: int) -> None:
    from matplotlib.animation import PillowWriter

    writer = PillowWriter(FRAMES_A_SECOND)
    with written_whole(path) as temporary, writer.saving(figure, str(temporary), 100):
        for place in range(frames):
            draw(place)
            writer.grab_frame()
