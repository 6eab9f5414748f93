"""Restoring whole pictures and recordings: what `molflow restore` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from molflow.adapters.adapter import Adapter
from molflow.data.speech import LOUDNESS
from molflow.inverse.hearing import Listening, listen
from molflow.inverse.operators import REACHED, Blur, Both, Clipped, Identity, Masked, Operator, Shrink, low_pass
from molflow.inverse.pictures import Picture
from molflow.inverse.posterior import Averaging, average
from molflow.inverse.solve import Recipe, plain_signal, restore
from molflow.inverse.sounds import Sound
from molflow.inverse.tiles import Tiling

Progress = Callable[[str, float], None]

Method = Recipe | Averaging | Listening
"""How signals are restored: D-Flow, the posterior mean, or, of sound, the mean of levels."""

TILES = 16
"""Solved at once: memory is that of so many, however large a picture is."""


@dataclass(frozen=True)
class Damage:
    """What was done to a signal, and to which.

    Attributes:
        operator: A, for whole signals.
        noise: standard deviation of the measurements' noise, of signals in [-1, 1].
        factor: how many times shorter a measurement is along each axis.
        reach: how far, in entries of the signal, a measured entry looks.
        known: (P or 1, 1, *size) bool, where the measurement is the signal itself and stays as it is; or None.
    """

    operator: Operator
    noise: float
    factor: int = 1
    reach: int = 0
    known: Tensor | None = None


def picture(damaged: Picture, adapter: Adapter, damage: Damage, *, seed: int = 0, method: Method | None = None,
            progress: Progress | None = None) -> list[Picture]:
    """Restore a picture of any size and either kind with a prior of pictures: what it is step by step; the last is what
    it comes to.

    With a prior of colours, a grey picture is one whose colours have that mean; with a grey prior, colours are restored
    one by one.

    Raises ValueError where the picture, restored, is smaller than the prior's.
    """
    pages, colours = damaged.pixels[None], adapter.shape[0]
    if colours == 1:
        pages = damaged.pixels[:, None]
        if isinstance(damage.operator, Clipped):
            lower, upper = damage.operator.lower.transpose(0, 1), damage.operator.upper.transpose(0, 1)
            damage = dataclasses.replace(damage, operator=Clipped(lower, upper, damage.operator.gain))
    elif len(damaged.pixels) == 1:
        grey = adapter
        adapter = dataclasses.replace(grey, decode=lambda x: grey.decode(x).mean(1, keepdim=True),
                                      encode=lambda x: grey.encode(x.expand(-1, colours, -1, -1)))
    return [Picture(one.reshape(len(damaged.pixels), *one.shape[2:]), damaged.bits)
            for one in signals(pages, adapter, damage, seed, method, progress)]


def sound(damaged: Sound, adapter: Adapter, damage: Damage, *, seed: int = 0, method: Method | None = None,
          progress: Progress | None = None) -> list[Sound]:
    """Restore a recording at the prior's rate, channel by channel, each brought to the loudness the prior knows: what
    it is step by step; the last is what it comes to."""
    measured = damaged.samples[:, None]
    operator, length = damage.operator, measured.shape[-1]
    missing = max(0, adapter.shape[-1] // damage.factor - length)  # silence after a recording that is shorter
    heard = operator.mask if isinstance(operator, Masked) else torch.ones(1, 1, length, dtype=torch.bool)
    rms = (measured.square() * heard).sum((1, 2)).div(heard.sum((1, 2))).sqrt().clamp_min(1e-6)
    gain = (LOUDNESS / rms)[:, None, None]
    padded = torch.nn.functional.pad(measured * gain, (0, missing))
    if isinstance(operator, Clipped):
        operator = Clipped(torch.nn.functional.pad(operator.lower * gain, (0, missing), value=-torch.inf),
                           torch.nn.functional.pad(operator.upper * gain, (0, missing), value=torch.inf))
    elif isinstance(operator, Masked):
        operator = Masked(torch.nn.functional.pad(operator.mask, (0, missing), value=True))
    scaled = dataclasses.replace(damage, operator=operator, noise=damage.noise * float(gain.mean()), known=None)
    path = [one[..., : damage.factor * length] / gain
            for one in signals(padded, adapter, scaled, seed, method, progress)]
    if damage.known is not None:
        path = [torch.where(damage.known, measured, one) for one in path]
    return [Sound(one[:, 0], damage.factor * damaged.rate, damaged.subtype) for one in path]


def signals(measured: Tensor, adapter: Adapter, damage: Damage, seed: int = 0, method: Method | None = None,
            progress: Progress | None = None) -> list[Tensor]:
    """Restore signals (P, C, *size), in tiles of the prior's size: what they are step by step; the last is what they
    come to. Raises ValueError where they are smaller."""
    tile = tuple(plain_signal(adapter).shape[2:])
    size = tuple(damage.factor * n for n in measured.shape[2:])
    if any(n < t for n, t in zip(size, tile, strict=True)):
        raise ValueError(f"{_by(size)} is smaller than the prior's {_by(tile)}")
    tiling = Tiling.of(size, tile, damage.factor)
    inner = tiling.smaller(damage.factor).inner(-(-damage.reach // damage.factor)).repeat(
        len(measured), *[1] * (len(size) + 1))
    tiles = tiling.smaller(damage.factor).cut(measured) * inner
    operator = Both(_of_tiles(damage.operator, tiling, len(measured)), Masked(inner))
    made: list[list[Tensor]] = []
    for index in torch.arange(len(tiles)).split(TILES):
        path = _solved(adapter, operator.select(index), tiles[index], damage.noise, seed + len(made),
                       method or (Averaging() if len(size) == 2 else Listening()))
        made.append([one.cpu() for one in path])
        if progress:
            progress("restoring", (int(index[-1]) + 1) / len(tiles))
    steps = range(max(map(len, made)))
    whole = [tiling.join(torch.cat([path[min(step, len(path) - 1)] for path in made])) for step in steps]
    return whole if damage.known is None else [torch.where(damage.known, measured, one) for one in whole]


def _solved(adapter: Adapter, operator: Operator, measured: Tensor, noise: float, seed: int,
            method: Method) -> list[Tensor]:
    if isinstance(method, Recipe):
        return restore(adapter, operator, measured, noise=noise, seed=seed, recipe=method).path
    if isinstance(method, Listening):
        return listen(adapter, operator, measured, noise=noise, seed=seed, recipe=method).path
    return average(adapter, operator, measured, noise=noise, seed=seed, recipe=method).path


def _of_tiles(operator: Operator, tiling: Tiling, pages: int) -> Operator:
    def cut(x: Tensor) -> Tensor:
        return tiling.cut(x.expand(pages, *x.shape[1:]))

    if isinstance(operator, Masked):
        return Masked(cut(operator.mask))
    if isinstance(operator, Clipped):
        return Clipped(cut(operator.lower), cut(operator.upper), operator.gain)
    return operator


def _by(size: tuple[int, ...]) -> str:
    return f"{size[1]} x {size[0]} pixels" if len(size) == 2 else f"{size[0]} samples"


# ---- the damages that have names -------------------------------------------------------------------------------------


def holes(known: Tensor, noise: float) -> Damage:
    """Pixels or samples are missing; ``known`` (P or 1, 1, *size) bool."""
    return Damage(Masked(known), noise, known=known if noise == 0 else None)


def noisy(noise: float) -> Damage:
    """Nothing but noise. Raises ValueError where there is none."""
    if noise <= 0:
        raise ValueError("how strong is the noise to be taken for? Give --noise, above 0")
    return Damage(Identity(), noise)


def shrunk(factor: int, noise: float) -> Damage:
    """A picture was made smaller."""
    return Damage(Shrink(factor), noise, factor)


def blurred(kernel: Tensor, noise: float) -> Damage:
    """A picture was blurred by a kernel (k, k)."""
    return Damage(Blur(kernel), noise, reach=len(kernel) // 2)


def overexposed(damaged: Picture, noise: float) -> Damage:
    """What was brighter or darker than half the scale was cut off, and the scale stretched to that."""
    return Damage(Clipped.consistent(damaged.pixels[None], torch.ones(1), 2.0), noise)


def slowed(noise: float) -> Damage:
    """A recording was sampled at half the prior's rate: what is above is missing."""
    kernel = low_pass(2)
    return Damage(Blur(kernel, 2), noise, 2, len(kernel) // 2)


def overloaded(recording: Sound, noise: float, rate: int) -> Damage:
    """A recording was too loud: what exceeded its largest sample was cut off.

    At another sampling rate than its own, where nothing is flat any more, what was cut off is only missing.

    Raises ValueError where fewer than three samples of a channel are as large as the largest: nothing was cut off.
    """
    peaks = recording.samples.abs().amax(1)
    at_peak = recording.samples.abs() >= REACHED * peaks[:, None]
    if (at_peak.sum(1) < 3).any():
        raise ValueError("nothing is clipped: a channel reaches its largest value less than three times")
    if rate == recording.rate:
        operator = Clipped.consistent(recording.samples[:, None], peaks[:, None, None])
        return Damage(operator, noise, known=~at_peak[:, None] if noise == 0 else None)
    known = torch.ones(len(peaks), 1, recording.at(rate).samples.shape[1], dtype=torch.bool)
    channel, place = at_peak.nonzero().unbind(1)
    for near in (-1, 0, 1, 2):  # samples that the filter has mixed with what was cut off
        moved = (place * rate // recording.rate + near).clamp(0, known.shape[2] - 1)
        known[channel, 0, moved] = False
    return holes(known, noise)
