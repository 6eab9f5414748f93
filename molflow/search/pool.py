"""Candidates: source points with what they become, and who starts from which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from molflow.conditions import Conditions
from molflow.flow.state import State
from molflow.models import Generator, Predictor
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import unbatch
from molflow.molecules.fragment import Fragment
from molflow.molecules.stability import is_whole
from molflow.molecules.state import decode
from molflow.nn.anchored import Anchor
from molflow.search.problem import POWER, Problem, Progress
from molflow.search.scores import Scores

UNFIT = 1e6
"""Cost of starting from a molecule that will not do: more than any miss, so only where there is none that will."""


@dataclass(frozen=True)
class Pool:
    """K candidates, on the CPU.

    Attributes:
        sources: where they start, {key: (1, n, ...)} each.
        batch: what they become.
        readings: (K, P) by the guide, and scores that are asked for by RDKit.
        errors: (K, P) to be expected of the readings.
        fit: (K,) bool, whether they are whole, and meet the conditions.
    """

    sources: list[State]
    batch: MoleculeBatch
    readings: Tensor
    errors: Tensor
    fit: Tensor

    @classmethod
    @torch.no_grad()
    def run(cls, sources: list[State], generator: Generator, guide: Predictor, scores: Scores, conditions: Conditions,
            *, steps: int, chunk: int, tell: Progress, anchor: Anchor | None = None) -> Pool:
        """What the source points become; `chunk` of them go through the flow at once, those of like size together."""
        sizes = np.array([len(source["positions"][0]) for source in sources])
        order = np.argsort(sizes, kind="stable")
        batches: list[MoleculeBatch] = []
        for number, part in enumerate(parts := np.array_split(order, -(-len(order) // chunk))):
            tell("drawing", number / len(parts))
            space = generator.space(sizes[part])
            start = {key: value.to(generator.device)
                     for key, value in space.together([sources[place] for place in part]).items()}
            index = torch.arange(len(part), device=generator.device)
            held = None if anchor is None else anchor.select(torch.from_numpy(part))
            end = generator.flow(space, steps=steps, power=POWER, anchor=held)(start, index)
            batches.append(decode(end, space.mask, generator.vocabulary).to("cpu"))
        tell("drawing", 1.0)
        batch = MoleculeBatch.cat(batches)[torch.from_numpy(np.argsort(order, kind="stable"))]
        readings, doubts = guide.read(batch)
        return cls(sources, batch, scores.correct(readings, batch), scores.certain(guide.expected_errors(doubts)),
                   is_whole(batch) & conditions(batch))

    def places(self, fragment: Fragment) -> Tensor:
        """The atoms (K, k) of each candidate that lie most like the fragment; the first ones where it has none."""
        places = [fragment.place_in(molecule) for molecule in unbatch(self.batch)]
        atoms = [np.arange(len(fragment)) if place is None else place[0] for place in places]
        return torch.from_numpy(np.stack(atoms))

    def share(self, problem: Problem) -> Tensor:
        """For each of B problems a candidate (B,), none twice and no two that are the same molecule where that can be
        helped: those that are expected to miss least, all problems together."""
        cost = torch.stack([problem[np.array([row])].expected_miss(self.readings[:, None], self.errors[:, None])[:, 0]
                            for row in range(len(problem))])
        cost = cost.nan_to_num(UNFIT) + UNFIT * ~self.fit
        if not problem.any_size:
            cost += 1e3 * UNFIT * (torch.from_numpy(problem.sizes)[:, None] != self.batch.sizes)
        known: set[int] = set()
        while True:
            chosen = torch.from_numpy(linear_sum_assignment(cost.double().numpy())[1])
            new = self._twins(chosen) - known
            if not new:
                return chosen
            known |= new
            cost[:, list(new)] += UNFIT

    def _twins(self, chosen: Tensor) -> set[int]:
        """Fit candidates among the chosen that are the same molecule as one before them."""
        return {int(chosen[row]) for row in twins(self.batch[chosen]) if self.fit[chosen[row]]}


def twins(batch: MoleculeBatch) -> list[int]:
    """Rows that hold the same valid molecule as one before them."""
    seen: set[str] = set()
    twins = []
    for row, molecule in enumerate(unbatch(batch)):
        if molecule.smiles in seen:
            twins.append(row)
        elif molecule.smiles is not None:
            seen.add(molecule.smiles)
    return twins
