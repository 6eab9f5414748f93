"""Quantum chemistry's word on molecules: do they have the properties they are said to have, and do they hold?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from ase import units

from molflow.molecules.convert import Molecule
from molflow.molecules.geometry import keeps_bonds
from molflow.molecules.io import Molecules, read
from molflow.oracles import dft, xtb
from molflow.oracles.record import UNITS, Properties
from molflow.parallel import Crash, spread

Method = Literal["xtb", "dft"]
CLAIMANTS = ("target", "evaluator", "guide")
"""Who says what a molecule's properties are, as in ``target_gap``; the first of them that says anything is judged."""

VERIFIED = {name: unit for name, unit in UNITS.items() if name != "solvation"}
"""The values that are always in a table, and their units; solvation is calculated only where it is claimed."""

ON_QM9_SCALE = {"gap": (0.516, 4.241), "homo": (0.973, 3.812), "lumo": (0.514, 3.185), "mu": (0.914, -0.107),
                "cv": (0.967, 0.714)}
"""B3LYP's value = slope * GFN2-xTB's + intercept, in eV and D: least squares on 1,000 molecules of QM9. Polarisability
is not among them: GFN2-xTB explains no more of it than the number of atoms does."""

_ACROSS = {"gap": 1.2, "homo": 0.6, "lumo": 1.1, "mu": 0.6, "cv": 0.9}
_SAME = {"gap": 0.19, "homo": 0.12, "lumo": 0.11, "mu": 0.13, "alpha": 0.30, "cv": 0.12, "solvation": 1.5}


def tolerances(method: Method, level: str) -> dict[str, float]:
    """How far a property may lie from what is claimed, in `UNITS`, if it can be compared at all.

    On the level of the claims three times what the field's property networks (EDM, arXiv 2203.17003) miss on average: a
    network knows no better. For xTB of claims by B3LYP, QM9's level, what it misses in 19 of 20 molecules of QM9 after
    `ON_QM9_SCALE`.
    """
    if is_xtb(level):
        return _SAME if method == "xtb" else {}
    return _ACROSS if method == "xtb" else _SAME


def scales(method: Method, level: str) -> dict[str, tuple[float, float]]:
    """What brings a method's values to the level of the claims: slope and intercept of each property that can be
    compared."""
    same = method == "dft" or is_xtb(level)
    return {name: (1.0, 0.0) if same else ON_QM9_SCALE[name] for name in tolerances(method, level)}


def is_xtb(level: str) -> bool:
    """Whether claims are GFN2-xTB's; QM9's, B3LYP's, where nothing is said."""
    return level.startswith(xtb.METHOD)


STRAINED = 10.0
"""kcal/mol lost on relaxation. The geometries of QM9, from B3LYP, lose up to 6 by GFN2-xTB; a tautomer's worth more is
a geometry that the molecule does not have."""

KCAL_PER_MOL = units.mol / units.kcal
"""In one eV."""


@dataclass(frozen=True)
class Verdict:
    """What an oracle finds of one molecule.

    Attributes:
        molecule: as given.
        values: the oracle's answer; its `relaxation` is there if one was asked for.
        method: "xtb" or "dft".
        keeps_bonds: whether the relaxed positions show the molecule's bonds; None without relaxation.
        word: "agrees", "off target", "strained", "breaks", "failed" or, with nothing claimed, "calculated".
        reason: which numbers are behind the word; empty if all is well.
    """

    molecule: Molecule
    values: Properties
    method: Method
    keeps_bonds: bool | None
    word: str
    reason: str

    def row(self) -> dict[str, float | str | bool | None]:
        """All of it in columns, whose names have the unit in brackets and the method in front."""
        claims = {f"{who}_{name} [{UNITS[name]}]": value
                  for who in CLAIMANTS for name, value in _claims(self.molecule, who).items()}
        return {"name": self.molecule.properties.get("name", ""), "smiles": self.molecule.smiles, **claims,
                **self._columns()}

    @property
    def found(self) -> dict[str, float | str]:
        """The oracle's columns that have a value."""
        return {key: value for key, value in self._columns().items() if value is not None and value == value}

    def annotated(self) -> Molecule:
        """The molecule with what was `found` as properties, relaxed if that was asked for and went well."""
        path = self.values.relaxation
        geometry = self.molecule if path is None or path.relaxed is None else path.relaxed
        return replace(geometry, properties={**self.molecule.properties, **self.found})

    def _columns(self) -> dict[str, float | str | None]:
        path = self.values.relaxation
        columns: dict[str, float | str | None] = {
            f"{self.method}_{name} [{unit}]": getattr(self.values, name) for name, unit in UNITS.items()
            if name in VERIFIED or math.isfinite(getattr(self.values, name))}
        if path is not None:
            columns |= {f"{self.method}_strain [kcal/mol]": KCAL_PER_MOL * path.strain,
                        f"{self.method}_rmsd [Å]": path.rmsd,
                        f"{self.method}_keeps_bonds": None if self.keeps_bonds is None else int(self.keeps_bonds)}
        return columns | {f"{self.method}_verdict": self.word, f"{self.method}_reason": self.reason,
                          f"{self.method}_method": f"{self.values.method} ({self.values.version})",
                          f"{self.method}_time [s]": self.values.seconds}


def version(method: Method) -> str:
    """Program and version behind a method. Raises ValueError for an unknown one, OracleMissing for a missing one."""
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}: known are {', '.join(get_args(Method))}")
    return (xtb if method == "xtb" else dft).version()


def verify(
    molecules: Molecules,
    *,
    method: Method = "xtb",
    relax: bool = False,
    workers: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> list[Verdict]:
    """Calculate each molecule by quantum chemistry and compare with what it is said to be.

    Claims are properties such as ``target_gap``, and ``level`` says by what method, as `molflow.design` leaves
    them. The heat capacity is calculated only where it is a target and the molecule is relaxed, by DFT the
    polarisability only where it is claimed.

    Args:
        molecules: a list, or the path of an SDF file with 3D coordinates and all hydrogens.
        method: "xtb" (GFN2-xTB, a second a molecule) or "dft" (B3LYP/6-31G(2df,p) with density fitting, minutes).
        relax: relax first, which tells strain and broken bonds; the values are then those of the relaxed molecule.
        workers: processes; as many as there are cores by default. They import the script that calls this.
        progress: called with what is being done and the share of it that is done.

    Returns:
        A verdict a molecule, in order. What cannot be calculated is "failed", with the reason.

    Raises:
        OracleMissing: the method's program is not installed.
        FileNotFoundError, ValueError: the file is missing or holds no molecule, the method is unknown, or workers < 1.
    """
    program = version(method)
    if relax:
        version("xtb")  # DFT's relaxations, too, begin with its Hessian
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    read_in, _ = read(molecules)
    tell = partial(progress, method) if progress else None
    found = spread([_job(molecule, method, relax) for molecule in read_in], workers, tell)
    return [_judge(molecule, method, Properties(method=method, version=program, seconds=math.nan, fault=values.why)
                   if isinstance(values, Crash) else values)
            for molecule, values in zip(read_in, found, strict=True)]


def verify_one(molecule: Molecule, *, method: Method = "xtb", relax: bool = False) -> Verdict:
    """As `verify`, a single molecule, in this process. Raises OracleMissing."""
    return _judge(molecule, method, _job(molecule, method, relax)())


def _job(molecule: Molecule, method: Method, relax: bool) -> Callable[[], Properties]:
    cv = relax and "cv" in _claims(molecule, "target")
    if method == "xtb":
        return partial(xtb.properties, molecule, relax=relax, cv=cv, solvation="solvation" in _judged(molecule))
    return partial(dft.properties, molecule, relax=relax, cv=cv, alpha="alpha" in _judged(molecule))


def _judge(molecule: Molecule, method: Method, values: Properties) -> Verdict:
    path = values.relaxation
    keeps = None if path is None or path.relaxed is None else keeps_bonds(path.relaxed)
    level = str(molecule.properties.get("level", ""))
    allowed, scale = tolerances(method, level), scales(method, level)
    compared = {name: scale[name][0] * getattr(values, name) + scale[name][1] - claim
                for name, claim in _judged(molecule).items() if name in allowed}
    misses = [f"{name} off by {miss:+.2f} {UNITS[name]}" for name, miss in compared.items()
              if abs(miss) > allowed[name]]
    if values.fault:
        word, reason = "failed", values.fault
    elif keeps is False:
        word, reason = "breaks", "the relaxed molecule has other bonds"
    elif path is not None and KCAL_PER_MOL * path.strain > STRAINED:
        word, reason = "strained", f"{KCAL_PER_MOL * path.strain:.1f} kcal/mol"
    elif misses:
        word, reason = "off target", ", ".join(misses)
    else:
        word, reason = "agrees" if any(miss == miss for miss in compared.values()) else "calculated", ""
    return Verdict(molecule, values, method, keeps, word, reason)


def _judged(molecule: Molecule) -> dict[str, float]:
    """The claims that count: the targets, else what a network says."""
    return next((claims for who in CLAIMANTS if (claims := _claims(molecule, who))), {})


def _claims(molecule: Molecule, who: str) -> dict[str, float]:
    said = {name: molecule.properties.get(f"{who}_{name}") for name in UNITS}
    return {name: value for name, value in said.items() if isinstance(value, float | int)}
