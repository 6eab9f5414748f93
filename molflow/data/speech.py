"""Spoken digits: the Free Spoken Digit Dataset (Jackson et al.), 3,000 recordings of 6 speakers, 8 kHz, mono.

By the set's own rule, recordings with the numbers 0 to 4 are for testing.
"""

from __future__ import annotations

import io
import lzma
import struct
import wave
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molflow.data.signals import SignalStore
from molflow.data.store import DataError
from molflow.wording import in_a_line

RATE = 8_000
LARGEST = 2**28
"""Bytes of all recordings together; those of FSDD have 21 million."""

LOUDNESS = 0.05
"""Root mean square to which every recording is brought, of a full scale of 1: speech peaks at up to 15 times that."""


def read(folder: Path) -> SignalStore:
    """The recordings of ``fsdd.zip`` in ``folder``, each as loud as any other. Raises DataError."""
    path = folder / "fsdd.zip"
    train: list[Tensor] = []
    held_out: list[Tensor] = []
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := sum(file.file_size for file in archive.infolist())) > LARGEST:
                raise DataError(f"{path} holds {size} bytes, more than the {LARGEST} that it may")
            for name in sorted(name for name in archive.namelist() if name.endswith(".wav")):
                number = int(Path(name).stem.rpartition("_")[2])
                (held_out if number < 5 else train).append(_sound(archive.read(name)))
    except DataError:
        raise
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, wave.Error,
            struct.error) as error:
        raise DataError(f"{path} cannot be read ({in_a_line(error)})") from None
    if not train:
        raise DataError(f"{path} holds no recordings")
    return SignalStore(train, held_out, "Free Spoken Digit Dataset without its test split")


def loud(x: Tensor) -> Tensor:
    """Factors (B, 1, 1) that bring sound (B, 1, L) to the loudness of the training data; 1 for silence."""
    rms = x.square().mean((1, 2), keepdim=True).sqrt()
    return torch.where(rms > 0, LOUDNESS / rms, 1.0)


def _sound(raw: bytes) -> Tensor:
    """(1, 1, L) int16."""
    with wave.open(io.BytesIO(raw)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise wave.Error("a recording is not 8 kHz, mono, 16 bit")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    x = torch.from_numpy(samples / 32768).float()[None, None]
    return (x * loud(x)).clamp(-1, 1).mul(32767).round().to(torch.int16)


def emphasise(x: Tensor, amount: float) -> Tensor:
    """y[n] = x[n] - amount x[n - 1] along the last axis, silence before the first: high frequencies made louder, which
    in speech are faint and which a squared error would neglect."""
    return x - amount * torch.nn.functional.pad(x, (1, 0))[..., :-1]


def de_emphasise(y: Tensor, amount: float) -> Tensor:
    """x[n] = y[n] + amount x[n - 1], the exact inverse of `emphasise`, as a convolution with its impulse response."""
    length = y.shape[-1]
    response = amount ** torch.arange(length, device=y.device, dtype=y.dtype)
    product = torch.fft.rfft(y, 2 * length) * torch.fft.rfft(response, 2 * length)
    return torch.fft.irfft(product, 2 * length)[..., :length]
