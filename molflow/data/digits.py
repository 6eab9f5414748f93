"""Handwritten digits: MNIST's 10,000 test images in idx format (LeCun, Cortes & Burges), 28 x 28, grey."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from molflow.data.signals import SignalStore
from molflow.data.store import DataError

LARGEST = 2**26
"""Bytes of what is unpacked; MNIST's training part has 47 million."""

TRAIN = 9_000
"""The first so many, in the file's order, are to train on; the rest is held out."""


def read(folder: Path) -> SignalStore:
    """The pictures of ``t10k-images-idx3-ubyte.gz`` in ``folder``. Raises DataError."""
    path = folder / "t10k-images-idx3-ubyte.gz"
    try:
        with gzip.open(path) as file:
            raw = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error.__class__.__name__})") from None
    if len(raw) > LARGEST:
        raise DataError(f"{path} holds more than {LARGEST} bytes")
    magic, count, height, width = np.frombuffer(raw[:16], ">i4").tolist() if len(raw) >= 16 else (0, 0, 0, 0)
    if magic != 2051 or min(count, height, width) < 1 or len(raw) != 16 + count * height * width:
        raise DataError(f"{path} is not a file of idx images")
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(count, 1, height, width)
    pictures = torch.from_numpy(pixels.copy())
    return SignalStore([pictures[:TRAIN]], [pictures[TRAIN:]], "MNIST, test part: first 9,000 of 10,000 images")
