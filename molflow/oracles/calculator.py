"""Any calculator of ASE as an oracle: energy, relaxation and, where it has one, the dipole."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator
from ase.units import Debye

from molflow.molecules.convert import Molecule
from molflow.oracles import relaxation
from molflow.oracles.record import Properties, Relaxation

Source = BaseCalculator | Callable[[], BaseCalculator]
"""A calculator, or what makes one without being told anything: a class, a function, a partial function."""


def name_of(source: Source, relax: bool) -> str:
    """What a calculator is called, in small letters: ``emt``.

    Raises:
        ValueError: it cannot be made or sent to another process, calculates no energy, or, to relax with, no forces.
    """
    try:
        ForkingPickler.dumps(source)
    except Exception as error:  # whatever somebody else's class raises
        raise ValueError("the calculator cannot be sent to other processes: give a class, or a function that makes it "
                         f"and has a name in a module ({error})") from None
    try:
        calculator = made(source)
        known = list(calculator.implemented_properties)
    except Exception as error:
        raise ValueError(f"the calculator cannot be made: {type(error).__name__}: {error}") from None
    name = type(calculator).__name__
    if "energy" not in known:
        raise ValueError(f"{name} calculates no energy")
    if relax and "forces" not in known:
        raise ValueError(f"{name} calculates no forces: molecules cannot be relaxed with it (relax=False)")
    return name.lower()


def made(source: Source) -> BaseCalculator:
    """The calculator itself."""
    return source if isinstance(source, BaseCalculator) else source()


def properties(molecule: Molecule, source: Source, *, relax: bool = False) -> Properties:
    """Energy and, of molecules without a charge, dipole.

    Args:
        molecule: any; whether its elements and charges mean something to the calculator is its own affair. Formal
            charges are the atoms' initial charges.
        source: of the calculator.
        relax: give the values of the relaxed molecule, and the relaxation.

    Returns:
        The values. What cannot be calculated is a `fault`, never an exception.
    """
    begun, method, version = time.perf_counter(), "", f"ase {ase.__version__}"
    path: Relaxation | None = None

    def result(fault: str, **values: float) -> Properties:
        return Properties(method=method, version=version, relaxation=path, seconds=time.perf_counter() - begun,
                          fault=fault, **values)

    if not len(molecule.numbers):
        return result("no atoms")
    if not np.isfinite(molecule.positions).all():
        return result("positions are not finite")
    try:
        calculator = made(source)
        method = type(calculator).__name__
        if relax:
            path = relaxation.follow(molecule, calculator, method=method, version=version, steps=relaxation.STEPS)
            if path.fault or path.relaxed is None:
                return result(path.fault)
            molecule = path.relaxed
        atoms = molecule.to_ase()
        atoms.calc = calculator
        energy, mu = float(atoms.get_potential_energy()), math.nan
        if "dipole" in calculator.implemented_properties and not molecule.charges.sum():  # where an ion's is about
            mu = float(np.linalg.norm(atoms.get_dipole_moment())) / Debye  # is not said
    except Exception as error:  # calculators raise whatever they like
        return result(f"calculation failed ({type(error).__name__}: {' '.join(str(error).split())})")
    return result("" if math.isfinite(energy) else "the energy is not a number", energy=energy, mu=mu)
