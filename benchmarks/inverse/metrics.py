"""How near a restored signal is to the clean one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from molflow.data.speech import RATE

PIXELS_PER_DEGREE = 16
"""FLIP's distance to the picture: each of its few pixels can be seen."""

FRAME, HOP = 256, 64
"""Samples of a spectrum, 32 ms, and from one to the next."""

SILENCE = 1e-6
"""Power added to each bin of a spectrum, that of noise of 0.001 a sample: below that nothing is heard."""

TOGETHER = 16
"""Clips, 8 seconds, that are judged as one by STOI, which knows no half seconds."""


def psnr(made: Tensor, clean: Tensor) -> Tensor:
    """(B,) 20 log10 of the scale (2) over the root mean square error, dB; what is off the scale is cut off first."""
    return -10 * ((made.clamp(-1, 1) - clean) / 2).square().flatten(1).mean(1).clamp_min(1e-12).log10()


def ssim(made: Tensor, clean: Tensor) -> Tensor:
    """(B,) structural similarity (Wang et al. 2004), scikit-image's; 1 for equals."""
    from skimage.metrics import structural_similarity

    return torch.tensor([structural_similarity(a, b, data_range=2.0, channel_axis=0)
                         for a, b in zip(made.clamp(-1, 1).numpy(), clean.numpy(), strict=True)])


def flip(made: Tensor, clean: Tensor) -> Tensor:
    """(B,) FLIP (Andersson et al. 2020, HPG), a difference as it is seen, by no network: 0 for equals, 1 at most."""
    from flip_evaluator import evaluate

    def seen(x: Tensor) -> np.ndarray:
        return ((x.clamp(-1, 1) + 1) / 2).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy().astype(np.float32)

    return torch.tensor([evaluate(seen(b), seen(a), "LDR", applyMagma=False, parameters={"ppd": PIXELS_PER_DEGREE})[1]
                         for a, b in zip(made, clean, strict=True)])


def snr(made: Tensor, clean: Tensor, where: Tensor) -> Tensor:
    """(B,) 10 log10 of the clean signal's energy over the error's, dB, where ``where`` is true."""
    where = where.expand_as(clean)
    energy = (clean.square() * where).flatten(1).sum(1)
    error = ((made - clean).square() * where).flatten(1).sum(1)
    return 10 * (energy / error.clamp_min(1e-12)).clamp_min(1e-12).log10()


def log_spectral_distance(made: Tensor, clean: Tensor) -> Tensor:
    """(B,) root mean square over the bins of each spectrum of the difference in level, meant over the frames, dB
    (Gray & Markel 1976)."""
    def levels(x: Tensor) -> Tensor:
        spectrum = torch.stft(x[:, 0], FRAME, HOP, window=torch.hann_window(FRAME), normalized=True,
                              return_complex=True)
        return 10 * (spectrum.abs().square() + SILENCE).log10()

    return (levels(made) - levels(clean)).square().mean(1).sqrt().mean(1)


def stoi(made: Tensor, clean: Tensor) -> float:
    """Intelligibility (Taal et al. 2011), pystoi's, at most 1: mean over groups of `TOGETHER` clips."""
    from pystoi import stoi as of

    return float(np.mean([of(b.flatten().double().numpy(), a.flatten().double().numpy(), RATE)
                          for a, b in zip(made.split(TOGETHER), clean.split(TOGETHER), strict=True)]))

