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
from ase.calculators.calculator import Calculator, CalculatorError
from ase.optimize import LBFGS

from molflow.molecules.convert import Molecule
from molflow.oracles.record import Relaxation

FORCE = 0.01
"""Largest force on an atom of a relaxed molecule, eV/Å."""

STEPS = 500
"""Most steps of a relaxation: ten times what a typical one takes."""


def follow(molecule: Molecule, calculator: Calculator, *, method: str, version: str, steps: int) -> Relaxation:
    """Relax all atoms by L-BFGS, in vacuum.

    Args:
        molecule: any that the calculator can treat.
        calculator: raises ASE's CalculatorError where it cannot go on.
        method, version: for the record.
        steps: most steps.

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
