"""Finding molecules whose readings by the guide are those that are wanted.

D-Flow (Ben-Hamu et al. 2024, arXiv 2402.14017) in two parts. Drawing: many source points go through the flow, and each
problem starts from one that no other problem has; draws are shared by all problems that they fit. Solving: the source
point is moved by Newton's method through the flow until the readings are right (`molflow.flow.newton`). A problem that
stays unsolved starts once more, from the next best draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from molflow.flow.newton import find_root
from molflow.flow.source import Flow
from molflow.flow.state import State
from molflow.models import STEPS, Generator, Predictor
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import unbatch
from molflow.molecules.stability import connected, molecules_stable, stable_by_bonds
from molflow.molecules.state import decode
from molflow.nn.property import PROPERTIES, RESOLUTION

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done."""

REACHED = 0.2
"""A molecule is there when its readings miss by this in all, in units of the resolution."""

MAX_STEP = 0.05
"""Longest step of a source point, whose length is some 40: larger ones seldom lead to a whole molecule."""

BROKEN = 1e6
"""Cost of starting from a broken molecule: more than any miss, so only where there is no whole one."""


@dataclass(frozen=True)
class Budget:
    """What is spent on a molecule.

    Attributes:
        draws: forward flows, whose endpoints all problems that they fit may start from.
        gradients, trials: of Newton's method: most gradients, steps after each; nothing is moved without gradients.
        attempts: starts, each with that many gradients, for a problem that stays unsolved.
        steps: of the flow's solver.
    """

    draws: int = 16
    gradients: int = 2
    trials: int = 4
    attempts: int = 2
    steps: int = STEPS

    def nfe(self, properties: int) -> int:
        """Most evaluations of the velocity field for a molecule; a backward pass, one a property, counts as two."""
        start = self.gradients * (1 + 2 * properties + self.trials)
        return self.steps * (self.draws + self.attempts * start)


@dataclass(frozen=True)
class Problem:
    """B molecules to be found: the same properties for all, ranges and sizes of each.

    Attributes:
        names: P properties.
        low, high: (B, P) where each may lie; equal for a target, infinite where there is no bound.
        sizes: (B,) numbers of atoms.
        any_size: the sizes are only those of the draws: a problem may start from any of them.
    """

    names: tuple[str, ...]
    low: Tensor
    high: Tensor
    sizes: np.ndarray
    any_size: bool = False

    def __getitem__(self, rows: np.ndarray) -> Problem:
        return Problem(self.names, self.low[rows], self.high[rows], self.sizes[rows], self.any_size)

    @property
    def columns(self) -> list[int]:
        """Places of the properties among all six."""
        return [PROPERTIES.index(name) for name in self.names]

    def residual(self, readings: Tensor) -> Tensor:
        """How far readings (B, P), or (..., B, P), lie outside the ranges, in units of the resolution."""
        low, high = self.low.to(readings), self.high.to(readings)
        scale = torch.tensor([RESOLUTION[name] for name in self.names]).to(readings)
        return (readings - torch.minimum(torch.maximum(readings, low), high)) / scale


@dataclass(frozen=True)
class Found:
    """What came out for each of B problems.

    Attributes:
        batch: decoded molecules.
        guide: (B, 6) the guide's readings of the decoded molecules.
        nfe: (B,) evaluations of the velocity field spent.
        history: (rounds + 1, B) shortest residual so far: after drawing, then after each round.
        course: (rounds + 1, B, P) the guide's readings of the wanted properties there.
        sources: the source point of each, {key: (1, n, ...)}.
    """

    batch: MoleculeBatch
    guide: Tensor
    nfe: Tensor
    history: Tensor
    course: Tensor
    sources: list[State]


@dataclass
class _Pool:
    """K drawn candidates: where they start, what they become, its six readings, and whether it is whole."""

    sources: list[State]
    batch: MoleculeBatch
    readings: Tensor
    whole: Tensor

    def share(self, problem: Problem, free: Tensor) -> Tensor:
        """For each of B problems one candidate of those that are free (K,), no two alike: the nearest in all (B,)."""
        miss = problem.residual(self.readings[:, None, problem.columns]).norm(dim=2).T.nan_to_num(BROKEN) + BROKEN * ~self.whole
        if not problem.any_size:
            fits = torch.from_numpy(problem.sizes)[:, None] == self.batch.sizes
            miss = miss + 1e3 * BROKEN * ~fits
        miss = miss + 1e6 * BROKEN * ~free
        known: set[int] = set()
        while True:
            chosen = torch.from_numpy(linear_sum_assignment(miss.double().numpy())[1])
            new = self._twins(chosen) - known
            if not new:
                return chosen
            known |= new
            miss[:, list(new)] += BROKEN  # nobody gets a second copy while there is another whole molecule to take

    def _twins(self, chosen: Tensor) -> set[int]:
        """Whole candidates among the chosen that are the same molecule as one before them."""
        seen: set[str | None] = set()
        twins = set()
        for place, molecule in zip(chosen.tolist(), unbatch(self.batch[chosen]), strict=True):
            if self.whole[place]:
                if molecule.smiles in seen:
                    twins.add(place)
                seen.add(molecule.smiles)
        return twins


def solve(problem: Problem, generator: Generator, guide: Predictor, budget: Budget, *, seed: int = 0,
          chunk: int | None = None, progress: Progress | None = None) -> Found:
    """Find a molecule for each problem.

    Args:
        chunk: molecules solved at once, which bounds memory; molecules of like size go together. Few on a CPU, where
            padding costs more than small batches do.
    """
    chunk = chunk or (16 if generator.device.type == "cpu" else 256)
    columns = problem.columns
    tell = progress or (lambda what, share: None)
    pool = _draw(problem, generator, guide, budget, seed, 8 * chunk, tell)
    free = torch.ones(len(pool.sources), dtype=torch.bool)
    start = pool.share(problem, free)
    batch, guided = pool.batch[start], pool.readings[start]
    sources = [pool.sources[place] for place in start.tolist()]
    norm = torch.where(pool.whole[start], problem.residual(guided[:, columns]).norm(dim=1), torch.inf)
    nfe = torch.full((len(start),), budget.draws * budget.steps)
    history, course = [norm.clone()], [guided[:, columns].clone()]
    for attempt in range(budget.attempts if budget.gradients else 0):
        rows = (norm > REACHED).nonzero().squeeze(1)
        if not len(rows):
            break
        if attempt:
            if int(free.sum()) < len(rows):
                break
            start[rows] = pool.share(problem[rows.numpy()], free)
        free[start[rows]] = False
        ordered = rows[torch.from_numpy(np.argsort(pool.batch.sizes[start[rows]].numpy(), kind="stable"))]
        solved: list[_Solved] = []
        for part in ordered.split(chunk):
            tell(f"solving, start {attempt + 1}", sum(len(s.rows) for s in solved) / len(rows))
            begin = [pool.sources[place] for place in start[part].tolist()]
            solved.append(_solve_part(problem[part.numpy()], part, begin, generator, guide, budget))
        tell(f"solving, start {attempt + 1}", 1.0)
        for number in range(max(len(s.norms) for s in solved)):
            now, where = history[-1].clone(), course[-1].clone()
            for s in solved:
                round_ = min(number, len(s.norms) - 1)
                closer = s.norms[round_] < now[s.rows]
                now[s.rows[closer]], where[s.rows[closer]] = s.norms[round_, closer], s.course[round_, closer]
            history.append(now)
            course.append(where)
        for s in solved:
            nfe[s.rows] += s.nfe
            said = guide.predict(s.batch)
            miss = torch.where(is_whole(s.batch), problem[s.rows.numpy()].residual(said[:, columns]).norm(dim=1),
                               torch.inf)
            closer = miss < norm[s.rows]  # what is delivered is what was decoded, so that is what decides
            taken = s.rows[closer]
            norm[taken], guided[taken] = miss[closer], said[closer]
            batch = batch.replaced(taken, s.batch[closer])
            for row, place in zip(taken.tolist(), closer.nonzero().squeeze(1).tolist(), strict=True):
                sources[row] = s.sources[place]
    return Found(batch, guided, nfe, torch.stack(history), torch.stack(course), sources)


@dataclass(frozen=True)
class _Solved:
    """What Newton's method made of some problems; on the CPU."""

    rows: Tensor
    batch: MoleculeBatch
    sources: list[State]
    nfe: Tensor
    norms: Tensor
    course: Tensor


def _draw(problem: Problem, generator: Generator, guide: Predictor, budget: Budget, seed: int, chunk: int,
          tell: Progress) -> _Pool:
    """``budget.draws`` candidates of each problem's size."""
    rng = torch.Generator(device=generator.device).manual_seed(seed)
    sizes = np.sort(np.repeat(problem.sizes, budget.draws))
    sources: list[State] = []
    batches: list[MoleculeBatch] = []
    for part in np.array_split(sizes, -(-len(sizes) // chunk)):
        tell("drawing", len(sources) / len(sizes))
        space = generator.space(part)
        source = space.noise(rng)
        with torch.no_grad():
            end = generator.flow(space, steps=budget.steps)(source, torch.arange(len(part), device=generator.device))
        batches.append(decode(end, space.mask, generator.vocabulary).to("cpu"))
        sources += space.alone({key: value.cpu() for key, value in source.items()})
    tell("drawing", 1.0)
    batch = MoleculeBatch.cat(batches)
    return _Pool(sources, batch, guide.predict(batch), is_whole(batch))


def _solve_part(problem: Problem, rows: Tensor, begin: list[State], generator: Generator, guide: Predictor,
                budget: Budget) -> _Solved:
    space = generator.space(np.array([state["positions"].shape[1] for state in begin]))
    lowest = torch.full((len(rows),), torch.inf, device=generator.device)
    reading = torch.full((len(rows), len(problem.names)), torch.nan, device=generator.device)
    course: list[Tensor] = []

    def residual(endpoint: State, index: Tensor) -> tuple[Tensor, Tensor]:
        mask = space.mask[index]
        said = guide(endpoint, mask)[:, problem.columns]
        value = problem[index.cpu().numpy()].residual(said)
        whole = is_whole(decode(endpoint, mask, generator.vocabulary))
        # the same rule by which `find_root` keeps its best point, so that norms and readings agree
        norm = torch.where(whole, value.detach().norm(dim=1), torch.inf)
        better = norm < lowest[index]
        lowest[index[better]], reading[index[better]] = norm[better], said.detach()[better]
        course.append(reading.cpu().clone())
        return value, whole

    flow: Flow = generator.flow(space, steps=budget.steps, gradients=True)
    start = {key: value.to(generator.device) for key, value in space.together(begin).items()}
    root = find_root(flow, residual, space, start, gradients=budget.gradients, trials=budget.trials,
                     nfe_per_flow=budget.steps, tolerance=REACHED, max_step=MAX_STEP)
    made = decode(root.endpoint, space.mask, generator.vocabulary).to("cpu")
    sources = space.alone({key: value.cpu() for key, value in root.source.items()})
    return _Solved(rows, made, sources, root.nfe.cpu(), root.norms.cpu(), torch.stack(course))


def is_whole(batch: MoleculeBatch) -> Tensor:
    """(B,) bool: every atom has its valence, all hang together, and the charges add up to none, as in QM9."""
    return molecules_stable(stable_by_bonds(batch), batch) & connected(batch) & (batch.charges.sum(1) == 0)
