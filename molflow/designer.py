"""The main job: targets -> molecules. Draw many sources, then descend from the best through the flow's ODE."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from molflow.flow.solvers import time_grid
from molflow.flow.source import Flow, best_of_draws, optimise_source
from molflow.flow.state import State
from molflow.models import STEPS, Generator, Predictor
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import Molecule, unbatch
from molflow.molecules.stability import connected, molecules_stable, stable_by_bonds
from molflow.molecules.state import decode
from molflow.nn.property import PROPERTIES, RESOLUTION
from molflow.targets import TargetError, check_targets, warnings_for

if TYPE_CHECKING:
    import pandas as pd

    from molflow.verification import Method, Verdict

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done."""

REACHED = 0.05
"""A sample stops once its loss is below this: a miss of a fifth of the resolution."""


@dataclass(frozen=True)
class Budget:
    """How much is spent on a molecule: ``draws`` forward flows, then at most ``evals`` losses with gradients."""

    draws: int = 24
    evals: int = 8
    steps: int = STEPS

    @property
    def nfe(self) -> int:
        """Most evaluations of the velocity field a molecule can cost; a backward pass counts as two."""
        return self.steps * (self.draws + 3 * self.evals)


@dataclass(frozen=True)
class Problem:
    """B molecules to be found: the same properties for all, values and sizes of each."""

    names: tuple[str, ...]
    values: Tensor
    sizes: np.ndarray


@dataclass(frozen=True)
class Found:
    """What came out for each of B problems.

    Attributes:
        batch: decoded molecules.
        guide: (B, 6) the guide's reading of the decoded molecules.
        nfe: (B,) evaluations of the velocity field spent.
        history: (rounds + 1, B) lowest loss so far: after the draws, then after each round of the descent.
        course: (rounds + 1, B, P) the guide's reading of the wanted properties at that loss.
        sources: the source point of each molecule, {key: (1, n, ...)} without padding.
    """

    batch: MoleculeBatch
    guide: Tensor
    nfe: Tensor
    history: Tensor
    course: Tensor
    sources: list[State]


def solve(problem: Problem, generator: Generator, guide: Predictor, budget: Budget, *, seed: int = 0,
          chunk: int | None = None, progress: Progress | None = None) -> Found:
    """Find a molecule for each problem.

    D-Flow (Ben-Hamu et al. 2024, arXiv 2402.14017), started from the best of many draws.

    Args:
        chunk: molecules optimised at once, which bounds memory; molecules of like size go together. Few on a CPU,
            where padding costs more than small batches do.
    """
    chunk = chunk or (16 if generator.device.type == "cpu" else 256)
    rng = torch.Generator(device=generator.device).manual_seed(seed)
    order = np.argsort(problem.sizes, kind="stable")
    parts = np.array_split(order, max(1, -(-len(order) // chunk)))
    done: list[Found] = []
    for number, part in enumerate(parts):
        def tell(what: str, share: float, number: int = number) -> None:
            if progress:
                progress(what, (number + share) / len(parts))

        rows = torch.from_numpy(part)
        some = Problem(problem.names, problem.values[rows], problem.sizes[part])
        done.append(_solve_part(some, generator, guide, budget, rng, chunk, tell))
    back = torch.from_numpy(np.argsort(order, kind="stable"))
    sources = [source for found in done for source in found.sources]
    rounds = max(len(found.history) for found in done)

    def joined(series: list[Tensor]) -> Tensor:
        """Side by side; the parts that were done earlier stay where they ended."""
        held = [torch.cat([s, *[s[-1:]] * (rounds - len(s))]) for s in series]
        return torch.cat(held, 1)[:, back]

    return Found(MoleculeBatch.cat([f.batch for f in done])[back], torch.cat([f.guide for f in done])[back],
                 torch.cat([f.nfe for f in done])[back], joined([f.history for f in done]),
                 joined([f.course for f in done]), [sources[row] for row in back.tolist()])


def _solve_part(problem: Problem, generator: Generator, guide: Predictor, budget: Budget, rng: torch.Generator,
                chunk: int, tell: Progress) -> Found:
    space = generator.space(problem.sizes)
    columns = torch.tensor([PROPERTIES.index(name) for name in problem.names], device=generator.device)
    scale = torch.tensor([RESOLUTION[name] for name in problem.names], device=generator.device)
    values = problem.values.to(generator.device, torch.float32)

    def miss(said: Tensor, index: Tensor) -> Tensor:
        return ((said[:, columns] - values[index]) / scale).square().sum(-1)

    def grade(endpoint: State, index: Tensor) -> tuple[Tensor, Tensor]:
        """Readings (b, P), and losses (b,): squared misses in units of the resolution, infinite where the decoded
        molecule is broken, so that draws are chosen among whole molecules and the line search turns back before
        it breaks one."""
        mask = space.mask[index]
        said = guide(endpoint, mask)
        whole = is_whole(decode(endpoint, mask, generator.vocabulary))
        return said[:, columns], torch.where(whole, miss(said, index), torch.inf)

    def counted(flow: Flow, what: str, total: int) -> Flow:
        rows = 0

        def run(x0: State, index: Tensor) -> State:
            nonlocal rows
            endpoint = flow(x0, index)
            rows += len(index)
            tell(what, min(1.0, rows / total))
            return endpoint
        return run

    n = len(problem.sizes)
    everyone = torch.arange(n, device=generator.device)
    drawn = best_of_draws(counted(generator.flow(space, steps=budget.steps), "drawing", n * budget.draws),
                          lambda endpoint, index: grade(endpoint, index)[1], space, budget.draws, rng,
                          chunk=8 * chunk, nfe_per_flow=budget.steps)
    candidates, nfe = [decode(drawn.endpoint, space.mask, generator.vocabulary)], drawn.nfe
    sources = [drawn.source]
    lowest, reading = drawn.loss.clone(), grade(drawn.endpoint, everyone)[0]
    history, course = [lowest.clone()], [reading.clone()]

    def follow(endpoint: State, index: Tensor) -> Tensor:
        """The loss, and a note of where it stands after this round."""
        said, value = grade(endpoint, index)
        better = value.detach() < lowest[index]
        lowest[index[better]], reading[index[better]] = value.detach()[better], said.detach()[better]
        history.append(lowest.clone())
        course.append(reading.clone())
        return value

    if budget.evals:
        flow = counted(generator.flow(space, steps=budget.steps, gradients=True), "optimising", n * budget.evals)
        best = optimise_source(flow, follow, space, drawn.source, max_evals=budget.evals,
                               nfe_per_flow=budget.steps, target=REACHED, floor=0.0, ftol=1e-4)
        candidates.append(decode(best.endpoint, space.mask, generator.vocabulary))
        sources.append(best.source)
        nfe = nfe + best.nfe

    # what is delivered is what was decoded, so that is what decides
    readings = [guide.predict(batch) for batch in candidates]
    scores = torch.stack([torch.where(is_whole(batch), miss(said.to(generator.device), everyone), torch.inf)
                          for batch, said in zip(candidates, readings, strict=True)])
    choice = scores.argmin(0)
    rows = choice * n + everyone
    source = {key: torch.cat([state[key] for state in sources])[rows] for key in drawn.source}
    return Found(MoleculeBatch.cat(candidates)[rows].to("cpu"), torch.cat(readings)[rows.cpu()], nfe.cpu(),
                 torch.stack(history).cpu(), torch.stack(course).cpu(), space.alone(source))


def is_whole(batch: MoleculeBatch) -> Tensor:
    """(B,) bool: every atom has its valence, all hang together, and the charges add up to none, as in QM9."""
    return molecules_stable(stable_by_bonds(batch), batch) & connected(batch) & (batch.charges.sum(1) == 0)


@dataclass(frozen=True)
class DesignRun:
    """What ``design`` returns.

    Attributes:
        molecules: each with its targets, predictions and status in ``.properties``.
        targets: what was asked for.
        history: (rounds, n) lowest loss so far.
        course: (rounds, n, targets) the guide's reading of the wanted properties at that loss.
        settings: all that is needed to repeat the run.
        warnings: sentences for the user.
        trajectory: how the molecule with the lowest loss came from noise: x(t) at each step of the flow, decoded, with
            its number, from 1, as ``molecule`` and the time ``t`` in ``.properties``.
    """

    molecules: list[Molecule]
    targets: dict[str, float]
    history: np.ndarray
    course: np.ndarray
    settings: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    trajectory: list[Molecule] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        """One row a molecule."""
        import pandas as pd

        return pd.DataFrame([{"smiles": m.smiles, "formula": m.formula, "fault": m.fault, **m.properties}
                             for m in self.molecules])

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write SDF, CSV, JSON, pictures and an HTML page. Raises FileExistsError unless ``overwrite``."""
        from molflow.report import save

        return save(self, Path(folder), overwrite)

    def _repr_html_(self) -> str:
        """What a notebook shows: a table of the molecules."""
        from molflow.report import notebook_table

        return notebook_table(self)


def design(targets: Mapping[str, float | str], n: int = 16, seed: int = 0, *, atoms: int | None = None,
           device: str = "auto", budget: Budget = Budget(), generator: Path | None = None,
           guide: Path | None = None, evaluator: Path | None = None, verify: Method | None = None,
           progress: Progress | None = None) -> DesignRun:
    """Make ``n`` molecules that have the wanted properties.

    Args:
        targets: property -> value, a number in molflow's unit or text with a unit: ``{"gap": "0.18Ha"}``.
            Properties and units are ``alpha`` Bohr³, ``gap`` ``homo`` ``lumo`` eV, ``mu`` D, ``cv`` cal/(mol K).
        n: how many.
        seed: drives everything; the same seed on the same machine gives the same molecules.
        atoms: size of every molecule, hydrogens counted; by default drawn from p(size | targets) of the data.
        device: ``auto``, ``cpu`` or ``cuda``.
        budget: what may be spent on a molecule.
        generator, guide, evaluator: files of weights, by default the shipped ones.
        verify: ``xtb`` or ``dft``: relax every molecule by quantum chemistry, add what that says of it to its
            properties, and a verdict; see `molflow.verify`, also for the processes it starts.
        progress: called as the work goes on.

    Raises:
        TargetError: unknown property, unit or value; ``n`` or ``atoms`` out of range.
        WeightsError: weights missing or damaged.
        DeviceError: CUDA asked for and missing.
        OracleMissing, ValueError: the program behind ``verify`` is not installed, or it is neither of the two.
    """
    if verify is not None:
        from molflow import verification  # only here: it needs ASE

        verification.version(verify)
    wanted = check_targets(targets)
    if n < 1:
        raise TargetError(f"the number of molecules must be at least 1, got {n}")
    flow = Generator.load(generator, device)
    leader, judge = Predictor.load(guide or "guide", device), Predictor.load(evaluator or "evaluator", device)
    sizes = choose_sizes(flow, n, seed, atoms, wanted)
    problem = Problem(tuple(wanted), torch.tensor(list(wanted.values())).expand(n, -1), sizes)
    begun = time.perf_counter()
    found = solve(problem, flow, leader, budget, seed=seed, progress=progress)
    seconds = time.perf_counter() - begun
    judged = judge.predict(found.batch)

    molecules = unbatch(found.batch)
    for i, molecule in enumerate(molecules):
        for name in PROPERTIES:
            column = PROPERTIES.index(name)
            if name in wanted:
                molecule.properties[f"target_{name}"] = wanted[name]
            molecule.properties[f"guide_{name}"] = float(found.guide[i, column])
            molecule.properties[f"evaluator_{name}"] = float(judged[i, column])
        molecule.properties["valid"] = int(molecule.is_valid)
        molecule.properties["nfe"] = int(found.nfe[i])
    settings = {"targets": wanted, "n": n, "seed": seed, "atoms": atoms, "device": str(flow.device),
                "budget": vars(budget), "verify": verify, "seconds": seconds,
                "weights": {"generator": flow.path, "guide": leader.path, "evaluator": judge.path}}
    best = int(found.history[-1].argmin())
    trajectory = unbatch(flow.trajectory(found.sources[best], steps=budget.steps))
    for t, frame in zip(time_grid(budget.steps).tolist(), trajectory, strict=True):
        frame.properties.update(molecule=best + 1, t=round(t, 6))
    verdicts = []
    if verify is not None:
        verdicts = verification.verify(molecules, method=verify, relax=True, progress=progress)
        for molecule, verdict in zip(molecules, verdicts, strict=True):
            molecule.properties.update(verdict.found)
    return DesignRun(molecules, wanted, found.history.numpy(), found.course.numpy(), settings,
                     warnings_for(wanted, flow.prior.ranges), trajectory, verdicts)


def choose_sizes(generator: Generator, n: int, seed: int, atoms: int | None,
                 targets: dict[str, float] | None = None) -> np.ndarray:
    """(n,) atom counts: all ``atoms``, or drawn as the data has them. Raises TargetError out of range."""
    low, high = generator.prior.sizes[0], generator.prior.sizes[-1]
    if atoms is None:
        return generator.prior.draw_sizes(n, np.random.default_rng(seed), targets)
    if not low <= atoms <= high:
        raise TargetError(f"the model makes molecules of {low} to {high} atoms, not {atoms}")
    return np.full(n, atoms)


def sample(n: int, seed: int = 0, *, atoms: int | None = None, steps: int = STEPS, device: str = "auto",
           generator: Path | None = None) -> list[Molecule]:
    """Make ``n`` molecules as they come, without a target. Raises as ``design``."""
    if n < 1 or steps < 1:
        raise TargetError(f"the number of molecules and of steps must be at least 1, got {n} and {steps}")
    flow = Generator.load(generator, device)
    return unbatch(flow.sample(choose_sizes(flow, n, seed, atoms), seed=seed, steps=steps))
