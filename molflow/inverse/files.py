"""From a damaged file to a restored one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from molflow.adapters import audio, image
from molflow.data.speech import RATE
from molflow.inverse import pictures, restoration, show, sounds
from molflow.inverse.operators import gaussian_kernel, motion_kernel
from molflow.inverse.pictures import FileError, Picture
from molflow.inverse.restoration import Damage, Method, Progress
from molflow.inverse.solve import Recipe
from molflow.inverse.sounds import Sound

PICTURE_TASKS = "inpaint", "superresolve", "deblur", "denoise", "hdr"
SOUND_TASKS = "inpaint", "extend", "declip", "denoise"
METHODS = "mean", "dflow"
"""The posterior mean along the flow, of sound that of levels, and D-Flow as published."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for, as the command's options say it; see there.

    Attributes:
        noise: standard deviation, of a full scale of 1 (a picture from black to white, sound from 0 to its most).
        method: one of `METHODS`; ``evals`` belongs to ``dflow``, whose default is as published.
    """

    task: str
    mask: Path | None = None
    gaps: str | None = None
    factor: int = 2
    blur: float | None = None
    motion: str | None = None
    noise: float = 0.0
    prior: str | Path | None = None
    seed: int = 0
    method: str = "mean"
    evals: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Shown:
    """Files that show what was done: before and after side by side (PNG), and the way there (GIF)."""

    compare: Path | None = None
    film: Path | None = None


def restore_file(path: Path, out: Path, wanted: Wanted, shown: Shown = Shown(), *,
                 progress: Progress | None = None) -> str:
    """Restore a picture or a recording; returns what there is to say of it.

    Raises:
        FileError: a file cannot be read or is not what is wanted, or an option is missing or makes no sense.
        WeightsError: there is no such prior.
        ValueError: the signal is smaller than the prior's.
    """
    if wanted.noise < 0:
        raise FileError("--noise must not be below 0")
    for file, suffix in ((shown.compare, ".png"), (shown.film, ".gif")):
        if file and file.suffix.lower() != suffix:
            raise FileError(f"{file} must be named {suffix}")
    method = _method(wanted)
    if path.suffix.lower() in pictures.SUFFIXES:
        return _picture(path, out, wanted, method, shown, progress)
    if path.suffix.lower() in sounds.SUFFIXES:
        return _sound(path, out, wanted, method, shown, progress)
    raise FileError(f"{path} is none of {', '.join(pictures.SUFFIXES + sounds.SUFFIXES)}")


def _method(wanted: Wanted) -> Method | None:
    """None for the mean of what the file holds."""
    if wanted.method not in METHODS:
        raise FileError(f"unknown method {wanted.method!r}: known are {', '.join(METHODS)}")
    if wanted.method == "mean":
        if wanted.evals is not None:
            raise FileError("--evals belongs to --method dflow")
        return None
    if wanted.evals is None:
        return Recipe()
    if wanted.evals < 1:
        raise FileError("--evals must not be below 1")
    return Recipe(evals=wanted.evals)


def _picture(path: Path, out: Path, wanted: Wanted, method: Method | None, shown: Shown,
             progress: Progress | None) -> str:
    if out.suffix.lower() not in pictures.SUFFIXES:
        raise FileError(f"{out} is none of the picture formats {', '.join(pictures.SUFFIXES)}")
    damaged = pictures.read(path)
    damage = picture_damage(damaged, wanted)
    adapter = image.prior(wanted.prior or "photos", device=wanted.device)
    steps = restoration.picture(damaged, adapter, damage, seed=wanted.seed, method=method, progress=progress)
    restored = steps[-1]
    pictures.write(out, restored)
    if shown.compare:
        show.compare_pictures(shown.compare, damaged, restored)
    if shown.film:
        show.film_pictures(shown.film, damaged, steps)
    height, width = restored.pixels.shape[1:]
    return f"{width} x {height} pixels, {restored.bits} bit, written to {out}"


def picture_damage(damaged: Picture, wanted: Wanted) -> Damage:
    """What was done to a picture, by the options. Raises FileError."""
    noise = 2 * wanted.noise  # pixels lie in [-1, 1]
    match wanted.task:
        case "inpaint":
            if wanted.mask is None:
                raise FileError("--mask is missing: a picture that is bright where this one is to be filled in")
            return restoration.holes(pictures.read_mask(wanted.mask, damaged), noise)
        case "superresolve":
            if wanted.factor not in (2, 4):
                raise FileError(f"--factor must be 2 or 4, not {wanted.factor}")
            return restoration.shrunk(wanted.factor, noise)
        case "deblur":
            return restoration.blurred(_kernel(wanted), noise)
        case "denoise":
            return restoration.noisy(noise)
        case "hdr":
            return restoration.overexposed(damaged, noise)
    raise FileError(f"unknown task {wanted.task!r} for a picture: known are {', '.join(PICTURE_TASKS)}")


def _kernel(wanted: Wanted) -> Tensor:
    if (wanted.blur is None) == (wanted.motion is None):
        raise FileError("give either --blur, a Gaussian's standard deviation in pixels, or --motion LENGTH,DEGREES")
    if wanted.motion is None:
        if not 0 < wanted.blur <= 5:  # type: ignore[operator]
            raise FileError(f"--blur must be above 0 and at most 5 pixels, not {wanted.blur}")
        return gaussian_kernel(wanted.blur)  # type: ignore[arg-type]
    try:
        length, degrees = (float(word) for word in wanted.motion.split(","))
    except ValueError:
        raise FileError(f"--motion must be LENGTH,DEGREES, such as 7,45, not {wanted.motion!r}") from None
    if not 1 <= length <= 15:
        raise FileError(f"a motion must be 1 to 15 pixels long, not {length:g}")
    return motion_kernel(length, degrees)


def _sound(path: Path, out: Path, wanted: Wanted, method: Method | None, shown: Shown,
           progress: Progress | None) -> str:
    if out.suffix.lower() not in sounds.SUFFIXES:
        raise FileError(f"{out} is none of the sound formats {', '.join(sounds.SUFFIXES)}")
    original = sounds.read(path)
    rate = RATE // 2 if wanted.task == "extend" else RATE
    damaged = original.at(rate)
    damage = sound_damage(original, damaged, wanted)
    adapter = audio.prior(wanted.prior or "speech", device=wanted.device)
    steps = restoration.sound(damaged, adapter, damage, seed=wanted.seed, method=method, progress=progress)
    restored = steps[-1]
    words = ""
    if original.rate != rate:
        words = f"resampled from {original.rate} to {rate} Hz for the prior; "
        if wanted.task in ("inpaint", "declip"):
            restored = _put_back(original, restored, wanted)
            words += f"only what was missing put back at {original.rate} Hz; "
    sounds.write(out, restored)
    if shown.compare:
        show.compare_sounds(shown.compare, original, restored)
    if shown.film:
        show.film_sounds(shown.film, damaged, steps)
    channels, length = restored.samples.shape
    many = "" if channels == 1 else f", {channels} channels one by one"
    return f"{words}{length / restored.rate:.2f} s at {restored.rate} Hz{many}, written to {out}"


def sound_damage(original: Sound, damaged: Sound, wanted: Wanted) -> Damage:
    """What was done to a recording, by the options; ``damaged`` is it at the prior's rate. Raises FileError."""
    match wanted.task:
        case "inpaint":
            if wanted.gaps is None:
                raise FileError("--gaps is missing: where to fill in, such as 0.50-0.53,1.20-1.24 in seconds")
            return restoration.holes(sounds.parse_gaps(wanted.gaps, damaged), wanted.noise)
        case "extend":
            return restoration.slowed(wanted.noise)
        case "declip":
            return restoration.overloaded(original, wanted.noise, damaged.rate)
        case "denoise":
            return restoration.noisy(wanted.noise)
    raise FileError(f"unknown task {wanted.task!r} for a recording: known are {', '.join(SOUND_TASKS)}")


def _put_back(original: Sound, restored: Sound, wanted: Wanted) -> Sound:
    """The original at its own rate, with what was missing from the restored one."""
    known = sound_damage(original, original, Wanted(wanted.task, gaps=wanted.gaps)).known
    filled = restored.at(original.rate).samples
    length = original.samples.shape[1]
    filled = torch.nn.functional.pad(filled, (0, max(0, length - filled.shape[1])))[:, :length]
    samples = torch.where(known[:, 0], original.samples, filled)  # type: ignore[index]
    return Sound(samples, original.rate, original.subtype)
