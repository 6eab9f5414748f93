"""What a user asks for, ``gap=5.0eV`` or ``mu<1``, as numbers in molflow's units."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ase import units

from molflow.nn.property import UNITS

# factor from a unit that may be written to the one molflow uses
_ENERGY = {"eV": 1.0, "meV": 1e-3, "Ha": units.Hartree, "kcal/mol": units.kcal / units.mol,
           "kJ/mol": units.kJ / units.mol}
_HEAT = {"cal/(mol K)": 1.0, "cal/mol/K": 1.0, "J/(mol K)": 1 / 4.184, "J/mol/K": 1 / 4.184}
FACTORS: dict[str, dict[str, float]] = {
    "alpha": {"Bohr^3": 1.0, "Bohr³": 1.0, "a0^3": 1.0, "A^3": 1 / units.Bohr**3, "Å³": 1 / units.Bohr**3},
    "gap": _ENERGY, "homo": _ENERGY, "lumo": _ENERGY,
    "mu": {"D": 1.0, "e*Bohr": units.Bohr / units.Debye},
    "cv": _HEAT,
    "qed": {}, "logp": {}, "sa": {},
    "tpsa": {"Å^2": 1.0, "Å²": 1.0, "A^2": 1.0},
    "mw": {"g/mol": 1.0, "Da": 1.0},
    "solvation": {"kcal/mol": 1.0, "kJ/mol": 1 / 4.184, "eV": units.mol / units.kcal},
}


def factors(unit: str) -> dict[str, float]:
    """Units in which a property of this one may be given, and the factors from them to it."""
    alike = next((known for known in FACTORS.values() if unit in known), {unit: 1.0} if unit else {})
    return {each: factor / alike[unit] for each, factor in alike.items()}


class TargetError(ValueError):
    """A target cannot be understood, or not be met."""


@dataclass(frozen=True)
class Goal:
    """Where a property is wanted: from ``low`` to ``high``, the same for a target, infinite where there is no bound.

    As large as possible is both infinite, as small as possible both minus infinity; see ``within``.
    """

    low: float
    high: float

    @property
    def value(self) -> float | None:
        """The number that is wanted, if it is one."""
        return self.low if self.low == self.high and math.isfinite(self.low) else None

    @property
    def is_extreme(self) -> bool:
        """Whether it is as large or as small as possible: every value is nearer it than another, none is there."""
        return self.low == math.inf or self.high == -math.inf

    def within(self, seen: tuple[float, float]) -> Goal:
        """The same where the model has seen values from ``seen[0]`` to ``seen[1]``: "as large as possible" is at least
        as large as any of them."""
        if self.low == math.inf:
            return Goal(seen[1], math.inf)
        return Goal(-math.inf, seen[0]) if self.high == -math.inf else self

    def inside(self, margin: float) -> Goal:
        """A range without its edges, where a reading that errs by ``margin`` is still in it; half of it at least."""
        if self.low == self.high:
            return self
        edge = min(margin, (self.high - self.low) / 4)
        return Goal(self.low + edge, self.high - edge)

    def miss(self, value: float) -> float:
        """How far a value lies outside, negative below."""
        return value - min(max(value, self.low), self.high)

    def of(self, name: str) -> str:
        """As `parse_targets` reads it: "gap=4..5", "mu<1"."""
        return f"{name}{'' if str(self)[0] in '<>' else '='}{self}"

    def __str__(self) -> str:
        """As `goal` reads it."""
        if self.is_extreme:
            return "max" if self.low > 0 else "min"
        low, high = (f"{bound:g}" if float(f"{bound:g}") == bound else repr(bound) for bound in (self.low, self.high))
        if self.value is not None:
            return low
        if math.isinf(self.low) or math.isinf(self.high):
            return f"<{high}" if math.isinf(self.low) else f">{low}"
        return f"{low}..{high}"


Wanted = Goal | float | str | Sequence[float]
"""What a property may be given as from Python: a number, text such as "5.0eV", "4..5", "<1" or "max", two bounds."""


def parse_targets(texts: Sequence[str]) -> dict[str, str]:
    """``["gap=4..5eV", "mu<1.2D"]`` -> ``{"gap": "4..5eV", "mu": "<1.2D"}``, as `check_targets` reads them. Raises
    TargetError in one sentence."""
    found: dict[str, str] = {}
    for text in texts:
        sign = re.search(r"=|[<>]=?", text)
        if sign is None:
            raise TargetError(f"cannot read target {text!r}: write property=value, for example gap=5.0")
        name, value = text[: sign.start()].strip(), text[sign.end() :]
        if name in found:
            raise TargetError(f"target {name} is given twice; for a range write {name}=LOW..HIGH")
        found[name] = value if sign[0] == "=" else sign[0][0] + value
    if not found:
        raise TargetError("give at least one target, for example gap=5.0")
    return found


def check_targets(targets: Mapping[str, Wanted], units: Mapping[str, str] = UNITS) -> dict[str, Goal]:
    """A `Goal` a property, from goals, numbers, pairs of bounds, or text with units.

    Args:
        units: the properties that there are, and their units.

    Raises:
        TargetError: in one sentence.
    """
    if not targets:
        raise TargetError("give at least one target, for example {'gap': 5.0}")
    found = {}
    for name, wanted in targets.items():
        if isinstance(wanted, Goal):
            found[name] = wanted
        elif isinstance(wanted, tuple | list):
            if len(wanted) != 2:
                raise TargetError(f"{name} must be a value or a pair of bounds, got {wanted!r}")
            found[name] = goal(name, f"{wanted[0]}..{wanted[1]}", units)
        else:
            found[name] = goal(name, str(wanted), units)
    return found


def goal(name: str, text: str, units: Mapping[str, str] = UNITS) -> Goal:
    """``5.0eV``, ``4..5``, ``<1``, ``>0.2Ha``, ``max`` or ``min`` of a property. Raises TargetError."""
    text = text.strip()
    if text in ("max", "min"):
        quantity(name, "0", units)  # is there such a property?
        return Goal(math.inf, math.inf) if text == "max" else Goal(-math.inf, -math.inf)
    if text[:1] in ("<", ">"):
        bound = quantity(name, text[1:].removeprefix("="), units)
        return Goal(-math.inf, bound) if text[0] == "<" else Goal(bound, math.inf)
    first, dots, last = text.partition("..")
    if not dots:
        value = quantity(name, text, units)
        return Goal(value, value)
    if not _split(name, first, units)[1]:
        first += _split(name, last, units)[1]  # 4..5meV: the unit is that of both
    low, high = quantity(name, first, units), quantity(name, last, units)
    if low > high:
        raise TargetError(f"{name}={text} is an empty range: write the smaller bound first")
    return Goal(low, high)


def check_consistent(goals: Mapping[str, Goal], errors: Mapping[str, float]) -> None:
    """Raise TargetError where gap, LUMO and HOMO are wanted and gap = LUMO - HOMO cannot be, given the guide's
    mean errors (eV)."""
    if not {"gap", "homo", "lumo"} <= goals.keys():
        return
    gap, homo, lumo = goals["gap"], goals["homo"], goals["lumo"]
    low, high = lumo.low - homo.high, lumo.high - homo.low
    slack = sum(errors.get(name, 0.0) for name in ("gap", "homo", "lumo"))
    if gap.low > high + slack or gap.high < low - slack:
        between = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        wanted = f"{gap.of('gap')} contradicts {homo.of('homo')} and {lumo.of('lumo')}"
        raise TargetError(f"{wanted}: gap = lumo - homo would be {between} eV")


def quantity(name: str, text: str, units: Mapping[str, str] = UNITS) -> float:
    """A value of a property, in its unit. Raises TargetError."""
    number, unit = _split(name, text, units)
    known = factors(units[name])
    if unit and unit not in known:
        raise TargetError(f"{unit!r} is not a unit of {name}: "
                          + (f"use {', '.join(known)}" if known else "it has none"))
    value = number * (known[unit] if unit else 1.0)
    if not math.isfinite(value):
        raise TargetError(f"{name} must be a finite number, got {text.strip()!r}")
    return value


def _split(name: str, text: str, units: Mapping[str, str]) -> tuple[float, str]:
    """Number and unit. Raises TargetError."""
    if name not in units:
        raise TargetError(f"unknown property {name!r}: known are {', '.join(units)}")
    text = text.strip()
    number = re.match(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text)
    if number is None:
        raise TargetError(f"cannot read {text!r} as a value of {name}" + (f" in {units[name]}" if units[name] else ""))
    return float(number[0]), text[number.end() :].strip()


def warnings_for(goals: Mapping[str, Goal], ranges: Mapping[str, tuple[float, float]],
                 units: Mapping[str, str] = UNITS) -> list[str]:
    """One sentence for each goal outside what the model has seen, where that is known."""
    return [f"{f'{wanted.of(name)} {units[name]}'.strip()} lies outside what the model has seen "
            f"({ranges[name][0]:.2f} to {ranges[name][1]:.2f}): expect misses"
            for name, wanted in goals.items() if name in ranges
            and ((math.isfinite(wanted.low) and wanted.low > ranges[name][1])
                 or (math.isfinite(wanted.high) and wanted.high < ranges[name][0]))]
