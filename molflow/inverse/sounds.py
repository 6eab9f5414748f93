"""Sound files: WAV and FLAC, of any sampling rate and any number of channels."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molflow.inverse.pictures import FileError
from molflow.writing import written_whole

SUFFIXES = ".wav", ".flac"
FORMATS = "WAV", "WAVEX", "FLAC"

MOST_SAMPLES = 2**27
"""Of all channels: three quarters of an hour at 48 kHz. Silence in a FLAC file takes next to no room."""

RATES = range(4000, 768_001)
"""Samples a second."""


@dataclass(frozen=True)
class Sound:
    """A recording: samples (C, L) within [-1, 1], samples a second, and the sample format of its file."""

    samples: Tensor
    rate: int
    subtype: str

    def at(self, rate: int) -> Sound:
        """The same sound at another rate, by a polyphase filter."""
        from scipy.signal import resample_poly

        if rate == self.rate:
            return self
        common = math.gcd(rate, self.rate)
        samples = resample_poly(self.samples.double().numpy(), rate // common, self.rate // common, axis=1)
        return Sound(torch.from_numpy(samples).float(), rate, self.subtype)


def read(path: Path) -> Sound:
    """Raises FileError where the file is missing, damaged, empty, silent, of another format, or holds no numbers."""
    import soundfile

    if not path.is_file():
        raise FileError(f"{path} does not exist")
    try:
        with soundfile.SoundFile(path) as file:
            if file.format not in FORMATS:
                raise FileError(f"{path} is neither WAV nor FLAC")
            if file.frames * file.channels > MOST_SAMPLES or file.samplerate not in RATES:
                raise FileError(f"{path} has {file.frames} x {file.channels} samples, {file.samplerate} a second: "
                                f"at most {MOST_SAMPLES} are read, {RATES[0]} to {RATES[-1]} a second")
            samples, rate, subtype = file.read(dtype="float32", always_2d=True), file.samplerate, file.subtype
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise FileError(f"{path} cannot be read as sound ({' '.join(str(error).split())})") from None
    if not np.isfinite(samples).all():
        raise FileError(f"{path} holds samples that are no numbers")
    if not samples.any():
        raise FileError(f"{path} is silent")
    return Sound(torch.from_numpy(samples.T.copy()), rate, subtype)


def write(path: Path, sound: Sound) -> None:
    """Write, whole or not at all; what exceeds the full scale is cut off. Raises FileError for an unknown format, or
    one that does not hold so many channels, or samples a second."""
    import soundfile

    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"{path} is none of the sound formats {', '.join(SUFFIXES)}")
    form = path.suffix[1:].upper()
    subtype = sound.subtype if soundfile.check_format(form, sound.subtype) else "PCM_16"
    encoded = io.BytesIO()  # libsndfile does not tell why it cannot write a file
    samples = np.ascontiguousarray(sound.samples.cpu().clamp(-1, 1).T.numpy())
    try:
        soundfile.write(encoded, samples, sound.rate, format=form, subtype=subtype)
    except soundfile.LibsndfileError as error:
        raise FileError(f"{path} cannot be written ({' '.join(str(error).split())})") from None
    with written_whole(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def parse_gaps(text: str, sound: Sound) -> Tensor:
    """(1, 1, L) bool, false in the gaps of ``text``, such as "0.50-0.53,1.2-1.24", in seconds. Raises FileError."""
    length = sound.samples.shape[1]
    known = torch.ones(1, 1, length, dtype=torch.bool)
    for gap in text.split(","):
        try:
            start, end = (round(float(word) * sound.rate) for word in gap.split("-"))
        except (ValueError, OverflowError):
            raise FileError(f"{gap.strip()!r} is no gap: write 0.50-0.53, in seconds") from None
        if not 0 <= start < end <= length:
            raise FileError(f"the gap {gap.strip()!r} is not within the recording's {length / sound.rate:.3f} s")
        known[..., start:end] = False
    if not known.any():
        raise FileError("the gaps leave nothing of the recording")
    return known
