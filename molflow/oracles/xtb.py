"""GFN2-xTB (Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652, 2019) by tblite."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import ase
import numpy as np
from ase.build import minimize_rotation_and_translation
from ase.calculators.calculator import CalculatorError
from ase.optimize import LBFGS

from molflow.molecules.convert import Molecule
from molflow.oracles.record import Calculation, OracleMissing

METHOD = "GFN2-xTB"
FORCE = 0.01
"""Largest force on an atom of a relaxed molecule, eV/Å."""

STEPS = 500
"""Most steps of a relaxation: ten times what a typical one takes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Relaxation(Calculation):
    """A molecule before and after its atoms have gone where the forces pull them.

    Attributes:
        energy_before, energy_after: total energy in eV; NaN where it could not be calculated.
        relaxed: the molecule with its new positions, turned and shifted onto the old ones, bonds and charges as they
            were, without properties; None where the calculation failed. Half relaxed if the steps ran out.
        rmsd: how far it moved: root mean square over all atoms, hydrogens too, in Å; NaN where there is none.
    """

    energy_before: float = math.nan
    energy_after: float = math.nan
    relaxed: Molecule | None = None
    rmsd: float = math.nan

    @property
    def strain(self) -> float:
        """Energy lost on relaxation, eV."""
        return self.energy_before - self.energy_after


def version() -> str:
    """Program and version. Raises OracleMissing where it is not installed."""
    return "tblite {}.{}.{}".format(*_tblite().library.get_version())


def relax(molecule: Molecule, *, steps: int = STEPS) -> Relaxation:
    """Relax all atoms by L-BFGS, in vacuum, without unpaired electrons, at the molecule's total formal charge.

    Args:
        molecule: any; elements up to radon.
        steps: most steps.

    Returns:
        The relaxation. A self-consistent field that does not converge, atoms on top of each other, positions that are
        not finite or steps that run out are its `fault`, never an exception.

    Raises:
        OracleMissing: tblite is not installed.
    """
    begun, said = time.perf_counter(), version()

    def result(fault: str, **values: Any) -> Relaxation:
        return Relaxation(method=METHOD, version=said, seconds=time.perf_counter() - begun, fault=fault, **values)

    if not len(molecule.numbers):
        return result("no atoms")
    if not np.isfinite(molecule.positions).all():
        return result("positions are not finite")
    atoms = molecule.to_ase()
    atoms.calc = _tblite().ase.TBLite(method=METHOD, verbosity=0)
    before = math.nan
    try:
        before = atoms.get_potential_energy()
        done = LBFGS(atoms, logfile=os.devnull).run(fmax=FORCE, steps=steps)
        after = atoms.get_potential_energy()
    except CalculatorError as error:
        return result(f"calculation failed ({error})", energy_before=before)
    relaxed, rmsd = _aligned(atoms, molecule)
    return result("" if done else f"not relaxed in {steps} steps", energy_before=before, energy_after=after,
                  relaxed=relaxed, rmsd=rmsd)


def _aligned(atoms: ase.Atoms, onto: Molecule) -> tuple[Molecule, float]:
    """The molecule at the atoms' positions, turned (never reflected) and shifted onto where it was; RMSD in Å."""
    moved = atoms.copy()
    minimize_rotation_and_translation(onto.to_ase(), moved)
    rmsd = math.sqrt(((moved.positions - onto.positions) ** 2).sum(1).mean())
    return replace(onto, positions=moved.positions, properties={}), rmsd


def _tblite() -> Any:
    """The package, with its modules `ase` and `library`."""
    try:
        import tblite.ase
        import tblite.library
    except ModuleNotFoundError:
        raise OracleMissing("GFN2-xTB needs tblite: `pip install 'molflow[oracles]'`") from None
    return tblite
