"""What a user asks for, ``gap=5.0eV``, as numbers in molflow's units."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from ase import units

from molflow.nn.property import PROPERTIES, UNITS

# factor from a unit that may be written to the one molflow uses
_ENERGY = {"eV": 1.0, "meV": 1e-3, "Ha": units.Hartree, "kcal/mol": units.kcal / units.mol,
           "kJ/mol": units.kJ / units.mol}
_HEAT = {"cal/(mol K)": 1.0, "cal/mol/K": 1.0, "J/(mol K)": 1 / 4.184, "J/mol/K": 1 / 4.184}
FACTORS: dict[str, dict[str, float]] = {
    "alpha": {"Bohr^3": 1.0, "Bohr³": 1.0, "a0^3": 1.0, "A^3": 1 / units.Bohr**3, "Å³": 1 / units.Bohr**3},
    "gap": _ENERGY, "homo": _ENERGY, "lumo": _ENERGY,
    "mu": {"D": 1.0, "e*Bohr": units.Bohr / units.Debye},
    "cv": _HEAT,
}


class TargetError(ValueError):
    """A target cannot be understood."""


def parse_targets(texts: Sequence[str]) -> dict[str, float]:
    """``["gap=5.0", "mu=1.2D"]`` -> ``{"gap": 5.0, "mu": 1.2}``. Raises TargetError in one sentence."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise TargetError(f"cannot read target {text!r}: write property=value, for example gap=5.0")
        if name in found:
            raise TargetError(f"target {name} is given twice")
        found[name] = quantity(name, value)
    if not found:
        raise TargetError("give at least one target, for example gap=5.0")
    return found


def check_targets(targets: Mapping[str, float | str]) -> dict[str, float]:
    """The same from a mapping whose values may be numbers or text with units."""
    if not targets:
        raise TargetError("give at least one target, for example {'gap': 5.0}")
    return {name: quantity(name, str(value)) for name, value in targets.items()}


def quantity(name: str, text: str) -> float:
    """A value of a property, in molflow's unit of it. Raises TargetError."""
    if name not in PROPERTIES:
        raise TargetError(f"unknown property {name!r}: known are {', '.join(PROPERTIES)}")
    match = re.fullmatch(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*", text)
    if match is None:
        raise TargetError(f"cannot read {text.strip()!r} as a value of {name} in {UNITS[name]}")
    number, unit = float(match[1]), match[2]
    factors = FACTORS[name]
    if unit and unit not in factors:
        raise TargetError(f"{unit!r} is not a unit of {name}: use {', '.join(factors)}")
    value = number * (factors[unit] if unit else 1.0)
    if not math.isfinite(value):
        raise TargetError(f"{name} must be a finite number, got {text.strip()!r}")
    return value


def warnings_for(targets: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """One sentence for each target outside what the model has seen."""
    return [f"{name}={value:g} {UNITS[name]} lies outside what the model has seen "
            f"({ranges[name][0]:.2f} to {ranges[name][1]:.2f}): expect misses"
            for name, value in targets.items() if not ranges[name][0] <= value <= ranges[name][1]]
