"""Relaxation of a molecule by the forces of any ASE calculator."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from typing import Any

import ase
import numpy as np
from ase.build import minimize_rotation_and_translation
from ase.calculators.calculator import BaseCalculator, CalculatorError
from ase.optimize import LBFGS
from numpy.typing import NDArray

from molflow.molecules.convert import Molecule
from molflow.oracles.internal import minimise
from molflow.oracles.record import Relaxation

FORCE = 0.01
"""Largest force on an atom of a relaxed molecule, eV/Å."""

LOOSE_FORCE = 0.0231
"""Where forces are dear: Gaussian's own criterion, 4.5e-4 Hartree/Bohr, to which QM9 was relaxed."""

STEPS = 500
"""Most steps of a relaxation: ten times what a typical one takes."""


def follow(molecule: Molecule, calculator: BaseCalculator, *, method: str, version: str, steps: int,
           force: float = FORCE, start: NDArray[np.float64] | None = None,
           hessian: NDArray[np.float64] | None = None) -> Relaxation:
    """Relax all atoms in vacuum, by L-BFGS or, with a Hessian to begin with, in internal coordinates.

    Args:
        molecule: any that the calculator can treat.
        calculator: raises ASE's CalculatorError where it cannot go on.
        method, version: for the record.
        steps: most steps.
        force: largest one on an atom when done, eV/Å.
        start: (n, 3) positions to begin at, Å, those of a similar energy's minimum; without it the molecule's own.
        hessian: (3n, 3n) second derivatives of that energy there, eV/Å².

    Raises:
        ExtraMissing: there is a Hessian, and geomeTRIC is not installed.

    Returns:
        The relaxation. What the calculator refuses, positions that are not finite or steps that run out are its
        `fault`, never an exception.
    """
    begun = time.perf_counter()

    def result(fault: str, **values: Any) -> Relaxation:
        return Relaxation(method=method, version=version, seconds=time.perf_counter() - begun, fault=fault, **values)

    if not len(molecule.numbers):
        return result("no atoms")
    if not np.isfinite(molecule.positions).all():
        return result("positions are not finite")
    atoms = molecule.to_ase()
    atoms.calc = calculator
    before = math.nan
    try:
        before = atoms.get_potential_energy()
        if start is not None:
            atoms.positions = start
        if hessian is None or len(atoms) == 1:
            done = LBFGS(atoms, logfile=os.devnull).run(fmax=force, steps=steps)
            after = atoms.get_potential_energy()
        else:
            done, after = minimise(atoms, hessian, force=force, steps=steps)
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
