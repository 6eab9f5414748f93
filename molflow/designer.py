"""The main job: what a chemist asks for -> molecules, judged and ready to be saved."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from molflow.flow.solvers import time_grid
from molflow.models import STEPS, Generator, Predictor
from molflow.molecules.convert import Molecule, unbatch
from molflow.nn.property import PROPERTIES
from molflow.search import Budget, Problem, Progress, solve
from molflow.targets import TargetError, check_targets, warnings_for

if TYPE_CHECKING:
    import pandas as pd

@dataclass(frozen=True)
class DesignRun:
    """What ``design`` returns.

    Attributes:
        molecules: each with its targets, predictions and status in ``.properties``.
        targets: what was asked for.
        history: (rounds, n) shortest miss so far, all targets together, in units of the guide's resolution.
        course: (rounds, n, targets) the guide's reading of the wanted properties there.
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
           guide: Path | None = None, evaluator: Path | None = None, progress: Progress | None = None) -> DesignRun:
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
        progress: called as the work goes on.

    Raises:
        TargetError: unknown property, unit or value; ``n`` or ``atoms`` out of range.
        WeightsError: weights missing or damaged.
        DeviceError: CUDA asked for and missing.
    """
    wanted = check_targets(targets)
    if n < 1:
        raise TargetError(f"the number of molecules must be at least 1, got {n}")
    flow = Generator.load(generator, device)
    leader, judge = Predictor.load(guide or "guide", device), Predictor.load(evaluator or "evaluator", device)
    sizes = choose_sizes(flow, n, seed, atoms, wanted)
    values = torch.tensor(list(wanted.values())).expand(n, -1)
    problem = Problem(tuple(wanted), values, values, sizes, any_size=atoms is None)
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
                "budget": vars(budget), "seconds": seconds,
                "weights": {"generator": flow.path, "guide": leader.path, "evaluator": judge.path}}
    best = int(found.history[-1].argmin())
    trajectory = unbatch(flow.trajectory(found.sources[best], steps=budget.steps))
    for t, frame in zip(time_grid(budget.steps).tolist(), trajectory, strict=True):
        frame.properties.update(molecule=best + 1, t=round(t, 6))
    return DesignRun(molecules, wanted, found.history.numpy(), found.course.numpy(), settings,
                     warnings_for(wanted, flow.prior.ranges), trajectory)


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
