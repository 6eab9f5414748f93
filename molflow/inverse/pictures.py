"""Picture files: PNG, JPEG and TIFF, grey or in colour, 8 or 16 bit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molflow.writing import written_whole

BEGINS = {".png": (b"\x89PNG",), ".jpg": (b"\xff\xd8",), ".jpeg": (b"\xff\xd8",),
          ".tif": (b"II", b"MM"), ".tiff": (b"II", b"MM")}
"""First bytes of a file with each suffix. OpenCV would read many more formats, whatever a file is called."""

SUFFIXES = tuple(BEGINS)

MOST_PIXELS = 2**26
"""67 megapixels: a few kB of PNG can say to be a thousand."""


class FileError(ValueError):
    """A file cannot be read, or is not what is wanted."""


@dataclass(frozen=True)
class Picture:
    """A picture: pixels (C, H, W) in [-1, 1], C 1 (grey) or 3 (red, green, blue), and the bits of its file."""

    pixels: Tensor
    bits: int


def read(path: Path) -> Picture:
    """Raises FileError where the file is missing, damaged, animated, transparent, or of another format."""
    cv2 = _opencv()
    if not path.is_file():
        raise FileError(f"{path} does not exist")
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"{path} is none of the picture formats {', '.join(SUFFIXES)}")
    with path.open("rb") as file:
        if not file.read(4).startswith(BEGINS[path.suffix.lower()]):
            raise FileError(f"{path} cannot be read as a picture: it is not what its name says")
    if path.suffix.lower() == ".png":
        _check_chunks(path)
    try:
        with _quiet():
            if cv2.imcount(str(path)) > 1:
                raise FileError(f"{path} is animated or has several pages: give one picture")
            raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FileError(f"{path} cannot be read as a picture ({' '.join(str(error.err).split())[:200]})") from None
    if raw is None:
        raise FileError(f"{path} cannot be read as a picture")
    if raw.dtype not in (np.uint8, np.uint16):
        raise FileError(f"{path} has pixels of type {raw.dtype}: only 8 and 16 bit are known")
    if raw.ndim == 3 and raw.shape[2] != 3:
        raise FileError(f"{path} has {raw.shape[2]} channels: only grey and colour without transparency are known")
    raw = raw[None] if raw.ndim == 2 else raw[..., ::-1].transpose(2, 0, 1)
    bits = 8 * raw.dtype.itemsize
    pixels = raw.astype(np.float32)
    pixels /= (2**bits - 1) / 2  # in place: large pictures are large
    pixels -= 1
    return Picture(torch.from_numpy(pixels), bits)


def _check_chunks(path: Path) -> None:
    """Raise FileError where a chunk of a PNG says to be longer than the file: OpenCV would make room for it, 2 GB."""
    size = path.stat().st_size
    with path.open("rb") as file:
        place = file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            place += 12 + int.from_bytes(head[:4], "big")  # length, kind and checksum, too
            if place > size:
                raise FileError(f"{path} cannot be read as a picture: it breaks off")
            file.seek(place)


def write(path: Path, picture: Picture) -> None:
    """Write, whole or not at all. JPEG has 8 bits, whatever the picture has. Raises FileError for an unknown
    format."""
    cv2 = _opencv()
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"{path} is none of the picture formats {', '.join(SUFFIXES)}")
    bits = 8 if path.suffix.lower() in (".jpg", ".jpeg") else picture.bits
    whole = ((picture.pixels.cpu().clamp(-1, 1) + 1) * ((2**bits - 1) / 2)).round().numpy()
    raw = whole.astype(np.uint16 if bits == 16 else np.uint8).transpose(1, 2, 0)[..., ::-1]
    done, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(raw))  # imwrite does not tell why it cannot
    if not done:
        raise FileError(f"{path} cannot be written in its format")
    with written_whole(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def read_mask(path: Path, picture: Picture) -> Tensor:
    """(1, 1, H, W) bool, true where ``picture`` is known: where the mask is dark. Raises FileError."""
    mask = read(path).pixels.mean(0)
    if mask.shape != picture.pixels.shape[1:]:
        sizes = ["{1} x {0}".format(*x.shape[-2:]) for x in (mask, picture.pixels)]
        raise FileError(f"the mask {path} is {sizes[0]} pixels, the picture {sizes[1]}")
    known = mask < 0
    if known.all() or not known.any():
        raise FileError(f"the mask {path} is all {'dark' if known.all() else 'bright'}: bright is what is to be "
                        "filled in")
    return known[None, None]


def _opencv() -> Any:
    """It looks for the largest size when it is imported, and nowhere else."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))
    import cv2

    return cv2


class _quiet:
    """OpenCV without its own words on standard error."""

    def __enter__(self) -> None:
        cv2 = _opencv()
        self.level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    def __exit__(self, *error: object) -> None:
        cv2 = _opencv()
        cv2.utils.logging.setLogLevel(self.level)
