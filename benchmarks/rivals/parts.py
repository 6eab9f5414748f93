"""What the comparison methods share: the same source points, the guide's miss, batches of molecules of like size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from molflow.flow.source import Flow
from molflow.flow.state import State
from molflow.models import Generator, Predictor
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.stability import is_whole
from molflow.molecules.state import MoleculeSpace, decode
from molflow.search import POWER, Found, Problem, Progress
from molflow.search.problem import STEPS

WITH_GRADIENT = 3
"""NFE of an evaluation of the velocity field with its backward pass, which counts as two."""


@dataclass(frozen=True)
class Part:
    """Some problems that go through the network together, and the source points that they begin with."""

    problem: Problem
    generator: Generator
    guide: Predictor
    space: MoleculeSpace
    start: State

    def residual(self, endpoint: State, index: Tensor) -> Tensor:
        """What the guide's readings of soft molecules (b rows) miss by, (b, P), in units of the resolution."""
        said = self.guide(endpoint, self.space.mask[index])
        return self.problem[index.cpu().numpy()].residual(said[:, self.problem.columns])

    def loss(self, endpoint: State, index: Tensor) -> Tensor:
        """(b,) squared length of the residual."""
        return self.residual(endpoint, index).square().sum(1)

    def flow(self, gradients: bool = False) -> Flow:
        return self.generator.flow(self.space, steps=STEPS, power=POWER, gradients=gradients)

    @property
    def index(self) -> Tensor:
        return torch.arange(len(self.problem), device=self.space.mask.device)


@dataclass(frozen=True)
class End:
    """Where a method came to: soft molecules and where they began, {key: (b, ...)}, and the NFE, (b,) or of each."""

    endpoint: State
    source: State
    nfe: Tensor | int


def numbers(seed: int, rows: int, draws: int = 1) -> np.ndarray:
    """(rows, draws) int64 numbers of source points, as `MoleculeSpace.numbered_noise` takes them. More draws or rows
    leave the others as they are, so that every method begins with the same source points, at whatever budget."""
    return np.array([[np.random.SeedSequence((seed, row, draw)).generate_state(1, np.uint64)[0] >> np.uint64(1)
                      for draw in range(draws)] for row in range(rows)]).astype(np.int64)


def in_parts(problem: Problem, generator: Generator, guide: Predictor, method: Callable[[Part], End],
             begin: np.ndarray, *, chunk: int | None, progress: Progress | None) -> Found:
    """Solve B problems from the source points numbered ``begin`` (B,), ``chunk`` of like size at once, as
    `molflow.search.solve` does. The history has one row: the miss of what came out, inf where it is not whole."""
    chunk = chunk or (16 if generator.device.type == "cpu" else 256)
    order = np.argsort(problem.sizes, kind="stable")
    batches: list[MoleculeBatch] = []
    sources: list[State] = []
    nfe = torch.empty(len(problem), dtype=torch.int64)
    for part in np.array_split(order, -(-len(order) // chunk)):
        if progress:
            progress("rival", len(sources) / len(order))
        space = generator.space(problem.sizes[part])
        start = space.numbered_noise(torch.from_numpy(begin[part]))
        end = method(Part(problem[part], generator, guide, space, start))
        batches.append(decode(end.endpoint, space.mask, generator.vocabulary).to("cpu"))
        sources += space.alone({key: value.cpu() for key, value in end.source.items()})
        nfe[part] = torch.as_tensor(end.nfe, device="cpu")
    if progress:
        progress("rival", 1.0)
    place = np.argsort(order, kind="stable")
    batch = MoleculeBatch.cat(batches)[torch.from_numpy(place)]
    readings, doubts = guide.read(batch)
    miss = problem.residual(readings[:, problem.columns]).norm(dim=1)
    whole = is_whole(batch)
    return Found(batch, readings, guide.expected_errors(doubts), whole, nfe,
                 torch.where(whole & miss.isfinite(), miss, torch.inf)[None], [sources[row] for row in place])
