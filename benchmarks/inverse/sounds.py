"""Recordings of speech to restore, and what is done to them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.inverse.problem import Damage, Problem, damaged
from molflow.adapters.adapter import Adapter
from molflow.data.signals import SignalStore
from molflow.data.speech import RATE
from molflow.data.store import data_folder
from molflow.inverse.operators import Blur, Clipped, Identity, Masked, Operator, low_pass

NOISE, MUCH = 0.001, 0.02
"""Standard deviations of a measurement's noise, of a full scale of 1, where speech has 0.05: for denoising the second,
a signal-to-noise ratio of 8 dB."""

VALIDATION = 8
"""Clips, not among those reported, by which methods choose their knobs."""

GAPS = 3
GAP = round(0.02 * RATE), round(0.04 * RATE)
"""Samples of the shortest and the longest gap."""

CLIPPING = 0.3
"""Share of a clip's largest sample at which it is cut off."""


def clean(n: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """(n, 1, length) clips of the test split to report, and (VALIDATION, 1, length) others of it.

    Raises:
        DataError: the data are not prepared.
        ValueError: more clips than there are.
    """
    store = SignalStore.load(data_folder() / "speech.safetensors")
    rng = torch.Generator().manual_seed(seed)
    clips = [clip[None] for stack in store.held_out for clip in stack]
    if n + VALIDATION > len(clips):
        raise ValueError(f"there are {len(clips)} clips of speech to test with, {VALIDATION} of them for validation")
    order = torch.randperm(len(clips), generator=rng).tolist()
    cut = [SignalStore([], [clips[i]], "").crops(1, length, rng, held_out=True)
           for i in order[:n] + order[-VALIDATION:]]
    return torch.cat(cut[:n]), torch.cat(cut[n:])


def _gaps(x: Tensor, rng: torch.Generator) -> Operator:
    """In speech, not in silence: where gaps begin is drawn by the loudness there."""
    known = torch.ones(x.shape, dtype=torch.bool)
    for mask, sound in zip(known[:, 0], x[:, 0], strict=True):
        loud = functional.avg_pool1d(sound.square()[None], GAP[1], 1).squeeze(0) + 1e-12
        loud[:GAP[1]] = loud[-GAP[1]:] = 0  # something must be known on either side
        for start in torch.multinomial(loud, GAPS, generator=rng).tolist():
            mask[start: start + int(torch.randint(GAP[0], GAP[1] + 1, (), generator=rng))] = False
    return Masked(known)


TASKS: dict[str, tuple[Damage, float]] = {
    "gaps of 20 to 40 ms": (_gaps, NOISE),
    "extension 4 → 8 kHz": (lambda x, rng: Blur(low_pass(2), 2), NOISE),
    "declipping": (lambda x, rng: Clipped(-_limit(x), _limit(x)), NOISE),
    "denoising": (lambda x, rng: Identity(), MUCH),
}
"""Each with its noise; kHz of samples a second."""


def _limit(x: Tensor) -> Tensor:
    return CLIPPING * x.abs().amax((1, 2), keepdim=True)


def problem(task: str, x: Tensor, adapter: Adapter, seed: int) -> Problem:
    """What is measured of clips x (B, 1, L)."""
    return damaged(*TASKS[task], x, adapter, seed)


def missing(problem: Problem) -> Tensor:
    """(B or 1, 1, L) bool, where nothing is known of a clip but its surroundings; everywhere, for other tasks."""
    operator = problem.operator
    if isinstance(operator, Masked):
        return ~operator.mask
    if isinstance(operator, Clipped):
        return ~(operator.lower.isinf() & operator.upper.isinf())
    return torch.ones(1, 1, 1, dtype=torch.bool)
