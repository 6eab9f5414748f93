"""Pictures to restore, and what is done to them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.inverse.problem import Damage, Problem, damaged
from molflow.adapters.adapter import Adapter
from molflow.data.signals import SignalStore, to_float
from molflow.data.store import DataError, data_folder
from molflow.inverse import pictures
from molflow.inverse.operators import (
    Blur,
    Clipped,
    Identity,
    Masked,
    Operator,
    Shrink,
    gaussian_kernel,
    motion_kernel,
)

NOISE, MUCH = 0.05, 0.2
"""Standard deviations of a measurement's noise, of pixels in [-1, 1]: for denoising the second. As in Martin et al.
2024, arXiv 2410.02423."""

VALIDATION = 8
"""Pictures, not among those reported, by which methods choose their knobs."""

WIDTH = 320
"""Pixels to which a photograph is reduced before patches are cut: at full size they show little but blur and grain."""

SAMPLES = {"skimage": ("data", ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")),
           "sklearn": ("datasets/images", ("china.jpg", "flower.jpg"))}
"""Photographs that scikit-image and scikit-learn ship; the prior has learnt from none of them."""


def clean(signals: str, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(n, C, H, W) pictures to report, and (VALIDATION, C, H, W) others, in [-1, 1].

    ``digits``: of the data set's held-out ones; ``photos``: patches of 32 pixels of other photographs than the prior's,
    and for validation of the prior's held-out ones.

    Raises:
        DataError: the data are not prepared, or the libraries with the photographs are not installed.
        ValueError: unknown signals, or more digits than there are.
    """
    rng = torch.Generator().manual_seed(seed)
    if signals == "digits":
        held_out = to_float(torch.cat(_store("digits").held_out))
        if n + VALIDATION > len(held_out):
            raise ValueError(f"there are {len(held_out)} held-out digits, {VALIDATION} of them for validation")
        order = torch.randperm(len(held_out), generator=rng)
        return held_out[order[:n]], held_out[order[-VALIDATION:]]
    if signals != "photos":
        raise ValueError(f"--signals must be digits or photos, not {signals!r}")
    others = SignalStore([], [_reduced(path) for path in _samples()], "sample pictures")
    return (others.crops(n, 32, rng, held_out=True), _store("photos").crops(VALIDATION, 32, rng, held_out=True))


def _store(name: str) -> SignalStore:
    return SignalStore.load(data_folder() / f"{name}.safetensors")


def _samples() -> list[Path]:
    found = []
    for library, (folder, names) in SAMPLES.items():
        spec = find_spec(library)
        if spec is None or spec.origin is None:
            raise DataError(f"{library} with its sample pictures is not installed: pip install 'molflow[benchmarks]'")
        found += [Path(spec.origin).parent / folder / name for name in names]
    return found


def _reduced(path: Path) -> Tensor:
    """(1, 3, H, WIDTH) uint8. Raises FileError."""
    pixels = pictures.read(path).pixels[None]
    height, width = pixels.shape[2:]
    small = functional.interpolate(pixels, (round(height * WIDTH / width), WIDTH), mode="area")
    return ((small + 1) * 127.5).round().to(torch.uint8)


# ---- what is done to them --------------------------------------------------------------------------------------------

def _box(x: Tensor, rng: torch.Generator) -> Operator:
    """A square of 3/7 of the side is missing, at a random place in the middle."""
    side = x.shape[2]
    width, room = 3 * side // 7, side // 8
    known = torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool)
    for mask in known:
        top, left = ((side - width) // 2 + int(torch.randint(-room, room + 1, (), generator=rng)) for _ in range(2))
        mask[:, top: top + width, left: left + width] = False
    return Masked(known)


def _random(x: Tensor, rng: torch.Generator) -> Operator:
    """70 % of the pixels are missing."""
    return Masked(torch.rand(len(x), 1, *x.shape[2:], generator=rng) < 0.3)


TASKS: dict[str, tuple[Damage, float]] = {
    "box inpainting": (_box, NOISE),
    "random inpainting": (_random, NOISE),
    "super-resolution ×2": (lambda x, rng: Shrink(2), NOISE),
    "super-resolution ×4": (lambda x, rng: Shrink(4), NOISE),
    "Gaussian deblurring": (lambda x, rng: Blur(gaussian_kernel(1.5)), NOISE),
    "motion deblurring": (lambda x, rng: Blur(motion_kernel(7, 45)), NOISE),
    "denoising": (lambda x, rng: Identity(), MUCH),
    "HDR": (lambda x, rng: Clipped(-torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), 2.0), NOISE),
}
"""Each with its noise. HDR, the one that is not linear: contrast is doubled, and what exceeds the scale cut off."""


def problem(task: str, x: Tensor, adapter: Adapter, seed: int) -> Problem:
    """What is measured of pictures x (B, C, H, W)."""
    return damaged(*TASKS[task], x, adapter, seed)
