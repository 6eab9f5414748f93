"""How near the molecules came to what was asked, by each of those who judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molflow.nn.property import UNITS

Fields = Mapping[str, float | str]
"""What is known of one molecule, as in ``Molecule.properties``."""

NAMES = {"alpha": "polarisability α", "gap": "HOMO–LUMO gap", "homo": "HOMO energy", "lumo": "LUMO energy",
         "mu": "dipole moment μ", "cv": "heat capacity Cv"}
"""Properties as a chemist writes them."""

JUDGES = {"guide": "guide", "evaluator": "evaluator", "xtb": "GFN2-xTB", "dft": "DFT"}
"""Prefix of a field: who says so. The guide was optimised against, so it is no judge of its own success."""


@dataclass(frozen=True)
class Reading:
    """One property of all n molecules as one judge has it.

    Attributes:
        judge: key of ``JUDGES``.
        name: of the property.
        target: what was asked for.
        values: (n,) NaN where there is none.
    """

    judge: str
    name: str
    target: float
    values: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.float64]:
        """The values that are numbers: broken molecules' too, if a judge has given them any."""
        return self.values[np.isfinite(self.values)]

    @property
    def misses(self) -> NDArray[np.float64]:
        return np.abs(self.known - self.target)

    @property
    def achieved(self) -> str:
        """Mean ± standard deviation."""
        known = self.known
        return mean(known) + (f" ± {known.std(ddof=1):.3f}" if len(known) > 1 else "")


def mean(values: NDArray[np.float64]) -> str:
    """To three decimals, or "none"."""
    return f"{values.mean():.3f}" if len(values) else "none"


def unit(name: str) -> str:
    """molflow's unit of a property, as it is printed; nothing for what is not a property."""
    return UNITS.get(name, "").replace("^3", "³")


def number(fields: Fields, key: str) -> float:
    """A field as a number, NaN where it is missing or text."""
    value = fields.get(key)
    return float(value) if isinstance(value, int | float | np.number) else np.nan


def column(molecules: Sequence[Fields], key: str) -> NDArray[np.float64]:
    """A field of all n molecules: (n,)."""
    return np.array([number(fields, key) for fields in molecules])


def readings(molecules: Sequence[Fields], targets: Mapping[str, float]) -> list[Reading]:
    """Property by property, all judges that have said something of any molecule; guide and evaluator in any case."""
    found = [Reading(judge, name, target, column(molecules, f"{judge}_{name}"))
             for name, target in targets.items() for judge in JUDGES]
    return [reading for reading in found if reading.judge in ("guide", "evaluator") or len(reading.known)]
