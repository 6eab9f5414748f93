"""From problems to molecules: candidates, then relatives of the best, then Newton's method.

D-Flow (Ben-Hamu et al. 2024, arXiv 2402.14017): the flow stays as it is, its source point is sought.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from molflow.conditions import Conditions
from molflow.flow.evolution import evolve
from molflow.flow.newton import Root, find_root
from molflow.flow.state import State
from molflow.models import Generator, Predictor
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.stability import is_whole
from molflow.molecules.state import MoleculeSpace, decode, encode
from molflow.nn.anchored import Anchor
from molflow.search.atlas import Atlas
from molflow.search.implant import NFE as IMPLANT_NFE
from molflow.search.implant import implant
from molflow.search.pool import Pool, twins
from molflow.search.problem import POWER, Budget, Found, Problem, Progress
from molflow.search.scores import Scores

NO_CONDITIONS = Conditions()

REACHED = 0.3
"""A molecule is there when its readings miss by this in all, in units of the resolution: a third of what the networks
themselves are wrong by, at best."""

SCALE = 0.1
"""Of the first generation's changes: a source point keeps most of itself, and its molecule most of its bonds."""

MAX_STEP = 0.05
"""Longest step of a source point, whose length is some 40: larger ones seldom lead to a whole molecule."""


def solve(problem: Problem, generator: Generator, guide: Predictor, budget: Budget, *, atlas: Atlas | None = None,
          conditions: Conditions = NO_CONDITIONS, seed: int = 0, chunk: int | None = None,
          progress: Progress | None = None) -> Found:
    """Find a molecule for each problem.

    Args:
        atlas: of this generator; candidates are looked up there instead of drawn.
        conditions: which molecules will do at all, besides being whole.
        chunk: molecules solved at once, which bounds memory; molecules of like size go together. Few on a CPU, where
            padding costs more than small batches do.
    """
    chunk = chunk or (16 if generator.device.type == "cpu" else 256)
    tell = progress or (lambda what, share: None)
    rng = torch.Generator(device=generator.device).manual_seed(seed)
    sources, known = _candidates(problem, generator, guide, budget, atlas, conditions, seed, rng)
    scores = Scores.of(problem, guide)
    run = partial(Pool.run, generator=generator, guide=guide, scores=scores, steps=budget.steps,
                  chunk=8 * chunk, tell=tell)
    spent, held, fragment = budget.steps * len(sources), None, conditions.fragment
    if fragment is not None:  # where does it lie, or can it? Its atoms are held there
        places = []
        if known:
            places.append(run(sources[:known], conditions=NO_CONDITIONS).places(fragment))
        if known < len(sources):
            sources[known:], atoms = implant(sources[known:], generator, fragment, chunk=2 * chunk, tell=tell)
            places.append(atoms)
        held = Anchor(torch.cat(places), torch.from_numpy(fragment.core.positions).float(),
                      torch.from_numpy(fragment.bodies))
        spent += budget.steps * known + IMPLANT_NFE * (len(sources) - known)
    pool = run(sources, conditions=conditions, anchor=held)
    problem = problem.within_reach(pool.readings[pool.fit])
    start = pool.share(problem)
    readings = pool.readings[start]
    residual = problem.residual(readings[:, problem.columns])
    fit = pool.fit[start] & residual.isfinite().all(1)
    expected = torch.where(fit, problem.expected_miss(readings, pool.errors[start]), torch.inf)
    norm = torch.where(fit, residual.norm(dim=1), torch.inf)
    nfe = torch.full((len(start),), spent // len(start))
    history = [norm.clone()]

    rows = (norm > REACHED).nonzero().squeeze(1)
    rows = rows[pool.batch.sizes[start[rows]].argsort(stable=True)]
    batch, found_sources = pool.batch[start], [pool.sources[place] for place in start.tolist()]
    done: list[tuple[Tensor, Root]] = []
    anchor = held and held.select(start)
    for part in rows.split(chunk) if len(rows) else ():
        tell("optimising", sum(len(r) for r, _ in done) / max(1, len(rows)))
        some = _Part(problem[part.numpy()], generator, guide, scores, conditions,
                     [found_sources[row] for row in part.tolist()],
                     None if anchor is None else anchor.select(part), expected[part])
        root = some.improve(residual[part], norm[part], batch[part], budget, rng)
        made = decode(root.endpoint, some.space.mask, generator.vocabulary).to("cpu")
        batch = batch.replaced(part, made)
        for row, source in zip(part.tolist(), some.space.alone({k: v.cpu() for k, v in root.source.items()}),
                               strict=True):
            found_sources[row] = source
        nfe[part] += root.nfe.cpu()
        done.append((part, root))
    tell("optimising", 1.0)
    for number in range(max((len(root.norms) for _, root in done), default=0)):
        now = history[-1].clone()
        for part, root in done:
            if number < len(root.norms):
                now[part] = root.norms[number].cpu()
        history.append(now)
    for row in twins(batch):  # two problems have come to the same molecule: one goes back to where it began
        batch = batch.replaced(torch.tensor([row]), pool.batch[start[row : row + 1]])
        found_sources[row] = pool.sources[int(start[row])]
    readings, doubts = guide.read(batch)
    return Found(batch, readings, guide.expected_errors(doubts), is_whole(batch) & conditions(batch), nfe,
                 torch.stack(history).cummin(0).values, found_sources, anchor)


def _candidates(problem: Problem, generator: Generator, guide: Predictor, budget: Budget, atlas: Atlas | None,
                conditions: Conditions, seed: int, rng: torch.Generator) -> tuple[list[State], int]:
    """Source points for each problem, first those from the atlas, and how many those are, then, where it has too few,
    noise of the problem's size: as much as is missing, and for a fragment as there would be without an atlas.

    An atlas knows what the guide has learnt. Of what is asked for besides it says nothing: where it can help with the
    rest, there are as many candidates from it as there would be draws."""
    on_map = problem.only(guide.learnt)
    if not on_map.names:
        atlas = None
    count = budget.draws if atlas is None or on_map.names != problem.names else budget.lookups
    places = np.full((len(problem), count), -1)
    if atlas is not None:
        errors = guide.expected_errors(torch.from_numpy(atlas.doubts))[:, :len(guide.learnt)]
        places = atlas.nearest(on_map, count, seed, errors, conditions.admits if conditions.all else None)
    known = places[places >= 0]
    sources: list[State] = []
    if atlas is not None and len(known):
        space = generator.space(atlas.sizes[known])
        sources += space.alone(_on_cpu(space.numbered_noise(torch.from_numpy(atlas.numbers[known]))))
    missing = (places < 0).sum(1)
    if conditions.fragment is not None:
        missing = missing * budget.draws // count
    fresh = np.sort(np.repeat(problem.sizes, missing))
    if len(fresh):
        space = generator.space(fresh)
        sources += space.alone(_on_cpu(space.noise(rng)))
    return sources, len(known)


@dataclass
class _Part:
    """Some problems that are optimised together."""

    problem: Problem
    generator: Generator
    guide: Predictor
    scores: Scores
    conditions: Conditions
    begin: list[State]
    anchor: Anchor | None
    expected: Tensor
    """(B,) misses to be expected of the candidates: where readings come nearer only because the molecule becomes one
    that the guide does not understand, nothing is won."""

    def __post_init__(self) -> None:
        self.space: MoleculeSpace = self.generator.space(np.array([len(s["positions"][0]) for s in self.begin]))

    def residual(self, endpoint: State, index: Tensor) -> tuple[Tensor, Tensor]:
        """What the guide's readings of the decoded molecules miss by, and which molecules will do. The types are
        decided, so that what is optimised is what comes out; gradients pass the decision as if it were none."""
        mask = self.space.mask[index]
        soft = endpoint["types"]
        hard = one_hot(soft.argmax(-1), soft.shape[-1]).to(soft) * mask[..., None]
        each = self.guide.each({**endpoint, "types": hard + soft - soft.detach()}, mask)
        problem = self.problem[index.cpu().numpy()]
        made = decode(endpoint, mask, self.generator.vocabulary)
        said = self.scores.correct(self.guide.network.mean(each), made)
        errors = self.scores.certain(self.guide.expected_errors(self.guide.network.doubt(each)))
        miss = problem.expected_miss(said, errors)
        fit = is_whole(made) & self.conditions(made) & (miss <= self.expected.to(miss)[index])
        return problem.residual(said[:, problem.columns]), fit

    def improve(self, residual: Tensor, norm: Tensor, batch: MoleculeBatch, budget: Budget,
                rng: torch.Generator) -> Root:
        """Evolution, then Newton's method, from candidates of which residual, length of it and molecule are known."""
        device = self.generator.device
        endpoint = {key: value.to(device) for key, value in encode(batch.trimmed(), self.generator.vocabulary).items()}
        source = {key: value.to(device) for key, value in self.space.together(self.begin).items()}
        root = Root(source, endpoint, residual.to(device), norm.to(device), norm.to(device)[None][:0],
                    torch.zeros(len(norm), dtype=torch.int64, device=device))
        through = partial(self.generator.flow, self.space, steps=budget.steps, power=POWER, anchor=self.anchor)
        root = evolve(through(), self.residual, self.space, root, generations=budget.generations,
                      children=budget.children, scale=SCALE, generator=rng, nfe_per_flow=budget.steps,
                      tolerance=REACHED)
        return find_root(through(gradients=True), self.residual, self.space, root, gradients=budget.gradients,
                         trials=budget.trials, nfe_per_flow=budget.steps, tolerance=REACHED, max_step=MAX_STEP)


def _on_cpu(state: State) -> State:
    return {key: value.cpu() for key, value in state.items()}
