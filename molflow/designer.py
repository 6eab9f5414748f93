"""The main job: what a chemist asks for -> molecules, judged and ready to be saved."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.data import chemical_symbols
from rdkit import Chem

from molflow.conditions import Conditions, has_formula, is_like, parse_formula
from molflow.flow.solvers import time_grid
from molflow.models import STEPS, Generator, Predictor
from molflow.molecules.convert import Molecule, unbatch
from molflow.molecules.druglike import scores_of
from molflow.molecules.fragment import Fragment
from molflow.molecules.labels import DRUGLIKE
from molflow.nn.property import UNITS
from molflow.nn.weights import shipped
from molflow.properties import Property, Widened, check_properties
from molflow.search import POWER, Atlas, Budget, Found, Problem, Progress, solve
from molflow.targets import Goal, TargetError, Wanted, check_consistent, check_targets, warnings_for

if TYPE_CHECKING:
    import pandas as pd

    from molflow.verification import Method, Verdict

BUDGET = Budget()

SIMILARITY = 0.4
"""Tanimoto's coefficient above which small molecules look alike."""


class NothingFound(RuntimeError):
    """The search ended without a molecule that will do."""


@dataclass(frozen=True)
class DesignRun:
    """What ``design`` returns.

    Attributes:
        molecules: each with its targets, predictions and status in ``.properties``; where a formula, a fragment or a
            lead was given, only those that meet it.
        targets: what was asked for.
        history: (rounds, molecules) shortest miss so far, all targets together, in units of the guide's resolution.
        settings: all that is needed to repeat the run.
        warnings: sentences for the user.
        trajectory: how the molecule with the lowest loss came from noise: x(t) at each step of the flow, decoded, with
            its number, from 1, as ``molecule`` and the time ``t`` in ``.properties``.
        verdicts: of quantum chemistry, one a molecule, if it was asked.
        units: of all properties that were read.
    """

    molecules: list[Molecule]
    targets: dict[str, Goal]
    history: np.ndarray
    settings: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    trajectory: list[Molecule] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    units: Mapping[str, str] = field(default_factory=lambda: UNITS)

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


def design(targets: Mapping[str, Wanted], n: int = 16, seed: int = 0, *, model: str = "qm9", atoms: int | None = None,
           formula: str | None = None, fragment: Molecule | Sequence[Molecule] | None = None,
           lead: Molecule | None = None, similarity: float = SIMILARITY,
           properties: Mapping[str, Property] | None = None, device: str = "auto", budget: Budget = BUDGET,
           generator: Path | None = None, guide: Path | None = None, evaluator: Path | None = None,
           verify: Method | None = None, share: tuple[int, int] = (0, 1),
           progress: Progress | None = None) -> DesignRun:
    """Make ``n`` molecules that have the wanted properties, each another one.

    Args:
        targets: property -> what is wanted of it, in molflow's unit or with one: a number or ``"0.18Ha"``, two bounds
            or ``"4..5"``, ``"<1.0"``, ``"max"``, ``"min"``. Properties and units are ``alpha`` Bohr³, ``gap``
            ``homo`` ``lumo`` eV, ``mu`` D, ``cv`` cal/(mol K); for drug-like molecules ``qed``, ``logp``, ``sa``,
            ``tpsa`` Å², ``mw`` g/mol, ``solvation`` kcal/mol, and all but ``cv`` by GFN2-xTB.
        n: how many.
        seed: drives everything; the same seed on the same machine gives the same molecules.
        model: ``qm9``, up to nine heavy atoms, or ``moses3d``, drug-like.
        atoms: size of every molecule, hydrogens counted; by default what suits the targets.
        formula: of every molecule, such as ``"C7H10O2"``.
        fragment: a piece to be contained atom for atom, with its bonds and, to 0.1 Å, its shape; hydrogens do not
            count. Where it has one, or an open valence, the rest of a molecule may begin. Several pieces are joined:
            in the places that they have beside each other, or, where they overlap, each for itself.
        lead: a molecule to stay near.
        similarity: how near, by Tanimoto's coefficient of Morgan fingerprints.
        properties: of your own, by name, which may then be among the targets; see `molflow.Property`.
        device: ``auto``, ``cpu`` or ``cuda``.
        budget: what may be spent on a molecule.
        generator, guide, evaluator: files of weights, by default those of the model.
        verify: ``xtb`` or ``dft``: relax every molecule by quantum chemistry, add what that says of it to its
            properties, and a verdict; see `molflow.verify`, also for the processes it starts.
        share: ``(k, count)``, k from 0. Calls for the same targets look up where to begin on the same map, whatever
            their seeds; those of other k do so on other parts of it, and come to other molecules.
        progress: called as the work goes on.

    Raises:
        TargetError: property that is unknown or not the model's, unit or value, or targets that contradict each other;
            ``n``, ``atoms``, ``formula`` or ``share`` out of range; a property of your own that has no gradient, a
            name that is taken, or is otherwise of no use.
        WeightsError: weights missing, damaged, or made for other molecules or properties.
        DeviceError: CUDA asked for and missing.
        NothingFound: no molecule meets the formula, the fragment or the lead.
        ExtraMissing, ValueError: the program behind ``verify`` is not installed, or it is neither of the two.
    """
    if verify is not None:
        from molflow import verification  # only here: it needs ASE

        verification.version(verify)
    if n < 1:
        raise TargetError(f"the number of molecules must be at least 1, got {n}")
    if not 0 <= share[0] < share[1]:
        raise TargetError(f"there is no share {share[0]} of {share[1]}: they are counted from 0")
    leader, judge = (Predictor.load(path or shipped(model, role), device)
                     for path, role in ((guide, "guide"), (evaluator, "evaluator")))
    own = properties or {}
    units = {**leader.units, **{name: one.unit for name, one in own.items()}}
    wanted = check_targets(targets, units)
    flow = Generator.load(generator or shipped(model, "generator"), device)
    for reader in (leader, judge):
        reader.check_for(flow)
    if own:
        check_properties(own, flow.vocabulary, flow.device, {*leader.properties, *judge.properties})
        leader, judge = (replace(reader, network=Widened(reader.network, own)) for reader in (leader, judge))
    for reader in (leader, judge):
        if strange := [name for name in wanted if name not in reader.properties]:
            raise TargetError(f"{reader.path.stem} does not know {strange[0]}: it knows {', '.join(reader.properties)}")
    must, atoms = _conditions(flow, atoms, formula, fragment, lead, similarity)
    core = must.fragment
    atlas, of_another = Atlas.beside(flow), False
    if atlas is not None:
        of_another = atlas.names != leader.learnt
        atlas = None if of_another else atlas.share(*share)
    check_consistent(wanted, leader.card.metrics)
    ranges = flow.prior.ranges
    goals = [(goal.within(ranges[name]) if name in ranges else goal).inside(leader.card.metrics.get(name, 0.0))
             for name, goal in wanted.items()]
    bounds = {name: (goal.low, goal.high) for name, goal in zip(wanted, goals, strict=True)}
    sizes = choose_sizes(flow, n, seed, atoms, bounds)
    if core is not None and atoms is None:
        sizes = sizes.clip(min(core.least, flow.prior.sizes[-1]))
    low, high = torch.tensor(list(bounds.values())).T
    problem = Problem(tuple(wanted), low.expand(n, -1), high.expand(n, -1), sizes, any_size=atoms is None,
                      known=leader.properties, extremes=extremes_beside(wanted),
                      resolution=leader.network.resolution | {name: one.resolution for name, one in own.items()})
    begun = time.perf_counter()
    found = solve(problem, flow, leader, budget, atlas=atlas, conditions=must, seed=seed, progress=progress)
    seconds = time.perf_counter() - begun
    warnings = warnings_for(wanted, ranges, units)
    if of_another:
        warnings.append(f"the atlas beside {flow.path.name} is of another guide: candidates were drawn; 'molflow data "
                        "atlas' makes one of this guide")
    if core is not None and core.bodies.any():
        warnings.append("the pieces overlap: each keeps its own shape, but not its place beside the others")
    if must.all and not found.fit.all():
        missing = f"{int((~found.fit).sum())} of the {n} molecules do not meet the formula, fragment or lead"
        if not found.fit.any():
            raise NothingFound(f"{missing}: allow more atoms or less similarity, or more --lookups and --draws")
        warnings.append(f"{missing}: they are left out; more --lookups and --draws find more")
        found = found.rows(found.fit.nonzero().squeeze(1))
    molecules = _described(found, wanted, leader, judge)
    asked = {name: str(goal) if goal.value is None else goal.value for name, goal in wanted.items()}
    settings = {"targets": asked, "model": model, "n": n, "seed": seed, "atoms": atoms, "formula": formula,
                "fragment": Chem.MolToSmiles(core.query) if core else None, "lead": lead.smiles if lead else None,
                "similarity": similarity if lead else None, "device": str(flow.device), "budget": vars(budget),
                "properties": {name: str(one) for name, one in own.items()},
                "verify": verify, "share": list(share), "seconds": seconds,
                "weights": {"generator": flow.path, "guide": leader.path, "evaluator": judge.path}}
    best = int(found.history[-1].argmin())
    trajectory = unbatch(flow.trajectory(found.sources[best], steps=budget.steps, power=POWER,
                                         anchor=found.anchor and found.anchor.select(torch.tensor([best]))))
    for t, frame in zip(time_grid(budget.steps, power=POWER).tolist(), trajectory, strict=True):
        frame.properties.update(molecule=best + 1, t=round(t, 6))
    verdicts = []
    if verify is not None:
        verdicts = verification.verify(molecules, method=verify, relax=True, progress=progress)
        for molecule, verdict in zip(molecules, verdicts, strict=True):
            molecule.properties.update(verdict.found)
    return DesignRun(molecules, wanted, found.history.numpy(), settings, warnings, trajectory, verdicts, units)


def _conditions(flow: Generator, atoms: int | None, formula: str | None,
                fragment: Molecule | Sequence[Molecule] | None, lead: Molecule | None, similarity: float
                ) -> tuple[Conditions, int | None]:
    """What every molecule must be, and how many atoms it must have, if that was said. Raises TargetError."""
    conditions = []
    if formula is not None:
        composition = parse_formula(formula, flow.vocabulary.elements)
        total = sum(composition.values())
        if atoms not in (None, total):
            raise TargetError(f"formula {formula} has {total} atoms, not {atoms}")
        atoms = total
        conditions.append(has_formula(composition))
    if lead is not None:
        conditions.append(is_like(lead, similarity))
    core = None
    if fragment is not None:
        core = Fragment.of(*([fragment] if isinstance(fragment, Molecule) else fragment))
        check_fragment(core, flow, atoms)
    return Conditions(conditions, core), atoms


def _described(found: Found, wanted: Mapping[str, Goal], leader: Predictor, judge: Predictor) -> list[Molecule]:
    """The molecules with what was wanted and what is known of each as its properties."""
    judged = judge.predict(found.batch)
    scored = not set(DRUGLIKE).isdisjoint(leader.properties)
    molecules = unbatch(found.batch)
    for i, molecule in enumerate(molecules):
        said = dict(zip(judge.properties, judged[i].tolist(), strict=True))
        for column, name in enumerate(leader.properties):
            if name in wanted:
                value = wanted[name].value
                molecule.properties[f"target_{name}"] = str(wanted[name]) if value is None else value
            molecule.properties[f"guide_{name}"] = float(found.guide[i, column])
            if name in said:
                molecule.properties[f"evaluator_{name}"] = said[name]
            if found.errors[i, column]:
                molecule.properties[f"guide_error_{name}"] = float(found.errors[i, column])
        if scored and molecule.smiles:
            molecule.properties.update({f"rdkit_{name}": value for name, value in scores_of(molecule.smiles).items()})
        molecule.properties["level"] = leader.level
        molecule.properties["valid"] = int(molecule.is_valid)
        molecule.properties["nfe"] = int(found.nfe[i])
    return molecules


def extremes_beside(wanted: Mapping[str, Goal]) -> frozenset[str]:
    """The properties that are wanted as large or as small as possible, if others are wanted in other ways."""
    extremes = frozenset(name for name, goal in wanted.items() if goal.is_extreme)
    return extremes if len(extremes) < len(wanted) else frozenset()


def check_fragment(core: Fragment, generator: Generator, atoms: int | None) -> None:
    """Raise TargetError where the generator's molecules cannot contain it."""
    for name, values, known in (("elements", core.core.numbers, generator.vocabulary.elements),
                                ("charges", core.core.charges, generator.vocabulary.charges)):
        if strange := sorted(set(values.tolist()) - set(known)):
            what = chemical_symbols[strange[0]] if name == "elements" else f"{strange[0]:+d}"
            raise TargetError(f"the fragment has {name} that the model does not know: {what}")
    room = atoms or generator.prior.sizes[-1]
    if len(core) > room:
        raise TargetError(f"the fragment has {len(core)} heavy atoms: too many for molecules of {room} atoms")


def choose_sizes(generator: Generator, n: int, seed: int, atoms: int | None,
                 ranges: dict[str, tuple[float, float]] | None = None) -> np.ndarray:
    """(n,) atom counts: all ``atoms``, or drawn as the data has them, with properties in ``ranges``. Raises TargetError
    out of range."""
    low, high = generator.prior.sizes[0], generator.prior.sizes[-1]
    if atoms is None:
        return generator.prior.draw_sizes(n, np.random.default_rng(seed), ranges)
    if not low <= atoms <= high:
        raise TargetError(f"the model makes molecules of {low} to {high} atoms, not {atoms}")
    return np.full(n, atoms)


def sample(n: int, seed: int = 0, *, model: str = "qm9", atoms: int | None = None, steps: int = STEPS,
           device: str = "auto", generator: Path | None = None) -> list[Molecule]:
    """Make ``n`` molecules as they come, without a target. Raises as ``design``."""
    if n < 1 or steps < 1:
        raise TargetError(f"the number of molecules and of steps must be at least 1, got {n} and {steps}")
    flow = Generator.load(generator or shipped(model, "generator"), device)
    return unbatch(flow.sample(choose_sizes(flow, n, seed, atoms), seed=seed, steps=steps))
