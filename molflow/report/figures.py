"""How near the molecules came to what was asked, by each of those who judge them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from molflow.nn.property import UNITS
from molflow.targets import Goal
from molflow.verification import Method, scales

Fields = Mapping[str, float | str]
"""What is known of one molecule, as in ``Molecule.properties``."""

NAMES = {"alpha": "polarisability α", "gap": "HOMO–LUMO gap", "homo": "HOMO energy", "lumo": "LUMO energy",
         "mu": "dipole moment μ", "cv": "heat capacity Cv", "qed": "drug-likeness QED", "logp": "log P",
         "tpsa": "polar surface TPSA", "sa": "synthetic accessibility", "mw": "molar mass",
         "solvation": "free energy of solvation in water"}
"""Properties as a chemist writes them."""

JUDGES = {"guide": "guide", "evaluator": "evaluator", "rdkit": "RDKit", "xtb": "GFN2-xTB", "dft": "DFT"}
"""Prefix of a field: who says so. The guide was optimised against, so it is no judge of its own success."""


@dataclass(frozen=True)
class Reading:
    """One property of all n molecules as one judge has it.

    Attributes:
        judge: key of ``JUDGES``.
        name: of the property.
        goal: what was asked for.
        values: (n,) NaN where there is none.
        rescaled: whether they were put on the scale of the targets.
        exact: whether it is a property of the user's own, which a function says and no network.
    """

    judge: str
    name: str
    goal: Goal
    values: NDArray[np.float64]
    rescaled: bool = False
    exact: bool = False

    @property
    def by(self) -> str:
        """Who says so; with a star if the values are not as said."""
        return "function" if self.exact else JUDGES[self.judge] + "*" * self.rescaled

    @property
    def known(self) -> NDArray[np.float64]:
        """The values that are numbers: broken molecules' too, if a judge has given them any."""
        return self.values[np.isfinite(self.values)]

    @property
    def misses(self) -> NDArray[np.float64]:
        """Of the values that are numbers; none of an extreme."""
        far = misses(self.known, self.goal)
        return far[np.isfinite(far)]

    @property
    def achieved(self) -> str:
        """Mean ± standard deviation."""
        known = self.known
        return mean(known) + (f" ± {known.std(ddof=1):.3f}" if len(known) > 1 else "")


def misses(values: NDArray[np.float64], goal: Goal) -> NDArray[np.float64]:
    """How far each value lies outside; NaN where there is no telling, as of an extreme."""
    if goal.is_extreme:
        return np.full_like(values, np.nan)
    return np.abs(values - values.clip(goal.low, goal.high))


def mean(values: NDArray[np.float64]) -> str:
    """To three decimals, or "none"."""
    return f"{values.mean():.3f}" if len(values) else "none"


def unit(name: str, units: Mapping[str, str]) -> str:
    """The unit of a property, as it is printed; nothing for what is not a property."""
    return units.get(name, "").replace("^3", "³").replace("^2", "²")


def number(value: object) -> float:
    """A field as a number, NaN where it is missing or text."""
    return float(value) if isinstance(value, int | float | np.number) else np.nan


def column(molecules: Sequence[Fields], key: str) -> NDArray[np.float64]:
    """A field of all n molecules: (n,)."""
    return np.array([number(fields.get(key)) for fields in molecules])


def readings(molecules: Sequence[Fields], targets: Mapping[str, Goal], own: Container[str] = ()) -> list[Reading]:
    """Property by property, all judges that have said something of any molecule; guide and evaluator in any case.

    Quantum chemistry is heard on what `molflow.verification.scales` can bring to the level of the targets, and nobody
    but their functions on the ``own`` properties of the user.
    """
    found = []
    level = next((str(fields["level"]) for fields in molecules if "level" in fields), "")
    for name, goal in targets.items():
        if name in own:
            found.append(Reading("evaluator", name, goal, column(molecules, f"evaluator_{name}"), exact=True))
            continue
        calculated = f"{name} [{UNITS.get(name, '')}]"  # as `molflow verify` calls it
        for judge in ("guide", "evaluator", "rdkit"):
            said = column(molecules, f"{judge}_{name}")
            if judge != "rdkit" or np.isfinite(said).any():
                found.append(Reading(judge, name, goal, said))
        for method in get_args(Method):
            slope, intercept = scales(method, level).get(name, (np.nan, np.nan))
            values = slope * column(molecules, f"{method}_{calculated}") + intercept
            if np.isfinite(values).any():
                found.append(Reading(method, name, goal, values, rescaled=(slope, intercept) != (1.0, 0.0)))
    return found
