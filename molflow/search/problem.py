"""What is to be found, what may be spent on it, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from molflow.flow.state import State
from molflow.molecules.batch import MoleculeBatch
from molflow.nn.anchored import Anchor
from molflow.nn.property import PROPERTIES, RESOLUTION

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done."""

STEPS, POWER = 10, 0.65
"""Of the solver in a search: half the steps that a single sample takes, since broken molecules can be thrown away, and
shorter ones in the beginning, which keeps most of them whole; `qm9-steps` among the benchmarks."""


EASE = 100.0
"""So many resolutions of an extreme weigh as one of a bound: about the spread of the property."""


@dataclass(frozen=True)
class Budget:
    """What is spent on a molecule.

    Attributes:
        lookups: candidates to start from, looked up in an atlas.
        draws: candidates to start from where there is no atlas, or too little of a fragment in it.
        generations, children: of the evolution of the source point.
        gradients, trials: of Newton's method: most gradients, steps after each; nothing is moved without gradients.
        steps: of the flow's solver.
    """

    lookups: int = 2
    draws: int = 16
    generations: int = 4
    children: int = 4
    gradients: int = 2
    trials: int = 4
    steps: int = STEPS

    def nfe(self, properties: int, atlas: bool = True) -> int:
        """Most evaluations of the velocity field for a molecule, without a fragment (`molflow.search.implant`); a
        backward pass, one a property, counts as two."""
        newton = self.gradients * (1 + 2 * properties + self.trials)
        flows = (self.lookups if atlas else self.draws) + self.generations * self.children + newton
        return self.steps * flows


@dataclass(frozen=True)
class Problem:
    """B molecules to be found: the same properties for all, ranges and sizes of each.

    Attributes:
        names: P properties.
        low, high: (B, P) where each may lie; equal for a target, infinite where there is no bound; both infinite for
            as large or as small as possible, see `within_reach`.
        sizes: (B,) numbers of atoms.
        any_size: the sizes are only suggestions: a problem may start from a candidate of any size.
        known: all that the guide reads, the columns of its readings.
        extremes: of the properties, those that are wanted as large or as small as possible beside others. No molecule
            comes near: counted in full, what they miss would leave nothing for the bounds of the others.
        resolution: of each property.
    """

    names: tuple[str, ...]
    low: Tensor
    high: Tensor
    sizes: np.ndarray
    any_size: bool = False
    known: tuple[str, ...] = PROPERTIES
    extremes: frozenset[str] = frozenset()
    resolution: Mapping[str, float] = field(default_factory=lambda: RESOLUTION)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: np.ndarray) -> Problem:
        return replace(self, low=self.low[rows], high=self.high[rows], sizes=self.sizes[rows])

    @property
    def columns(self) -> list[int]:
        """Places of the properties among all that are known."""
        return [self.known.index(name) for name in self.names]

    def only(self, known: tuple[str, ...]) -> Problem:
        """What it is for somebody who reads these properties alone; the others are not asked for."""
        kept = [place for place, name in enumerate(self.names) if name in known]
        return replace(self, names=tuple(self.names[place] for place in kept), low=self.low[:, kept],
                       high=self.high[:, kept], known=known)

    def within_reach(self, readings: Tensor) -> Problem:
        """As large as possible is `EASE` resolutions more than the largest of readings (K, P); as small, so much less
        than the smallest."""
        seen = readings[readings.isfinite().all(1)][:, self.columns]
        if not len(seen):
            seen = seen.new_zeros(1, len(self.names))
        reach = EASE * torch.tensor([self.resolution[name] for name in self.names])
        return replace(self, low=torch.where(self.low == torch.inf, seen.amax(0) + reach, self.low),
                       high=torch.where(self.high == -torch.inf, seen.amin(0) - reach, self.high))

    def residual(self, readings: Tensor) -> Tensor:
        """How far readings (B, P), or (..., B, P), lie outside the ranges, in units of the resolution."""
        low, high = self.low.to(readings), self.high.to(readings)
        return (readings - torch.minimum(torch.maximum(readings, low), high)) / self._scale.to(readings)

    def expected_miss(self, readings: Tensor, errors: Tensor) -> Tensor:
        """By how much, in units of the resolution, molecules must be expected to miss in truth, (..., B): of readings
        (..., B, K) that are wrong by ``errors`` (..., B, K), whichever way."""
        error = errors[..., self.columns] / self._scale.to(errors)
        return torch.hypot(self.residual(readings[..., self.columns]), error).norm(dim=-1)

    @property
    def _scale(self) -> Tensor:
        return torch.tensor([self.resolution[name] * (EASE if name in self.extremes else 1) for name in self.names])


@dataclass(frozen=True)
class Found:
    """What came out for each of B problems.

    Attributes:
        batch: decoded molecules.
        guide: (B, K) the guide's readings of them.
        errors: (B, K) to be expected of the readings.
        fit: (B,) bool, whether they are whole, and meet the conditions.
        nfe: (B,) evaluations of the velocity field spent.
        history: (rounds + 1, B) shortest residual so far, inf while no molecule was whole: of the candidates, then
            after each generation and each trial.
        sources: the source point of each, {key: (1, n, ...)}.
        anchor: which atoms of each were held in a fragment's place, if one was wanted.
    """

    batch: MoleculeBatch
    guide: Tensor
    errors: Tensor
    fit: Tensor
    nfe: Tensor
    history: Tensor
    sources: list[State]
    anchor: Anchor | None = None

    def rows(self, keep: Tensor) -> Found:
        """Of the problems numbered ``keep`` (b,) only."""
        return Found(self.batch[keep], self.guide[keep], self.errors[keep], self.fit[keep], self.nfe[keep],
                     self.history[:, keep], [self.sources[row] for row in keep.tolist()],
                     self.anchor and self.anchor.select(keep))
