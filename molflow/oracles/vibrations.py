"""What the vibrations of a molecule at a minimum are worth."""

from __future__ import annotations

import numpy as np
from ase.units import invcm, kB, kcal, mol
from numpy.typing import NDArray

from molflow.molecules.convert import Molecule

TEMPERATURE = 298.15
"""K."""

STEP = 1.0
"""K, on either side: the enthalpy is that smooth."""

STRAIGHT = 1e-3
"""Å: how far atoms may lie off the axis of a linear molecule."""

IMAGINARY = 50 * invcm
"""eV: below it an imaginary mode may be a rotation, where forces are not quite zero."""


def heat_capacity(molecule: Molecule, hessian: NDArray[np.float64]) -> float:
    """Cv at `TEMPERATURE`, cal/(mol K), of an ideal gas of rigid rotors with harmonic vibrations.

    Args:
        molecule: of two atoms or more, at a minimum.
        hessian: (3n, 3n) second derivatives of the energy there, eV/Å².

    Raises:
        ValueError: some frequencies are imaginary.
    """
    from ase.thermochemistry import IdealGasThermo  # only here: these take a second to load
    from ase.vibrations import VibrationsData

    atoms = molecule.to_ase()
    atoms.set_masses("most_common")  # isotopes, as Gaussian does
    energies = VibrationsData.from_2d(atoms, hessian).get_energies()
    if wrong := int((energies.imag > IMAGINARY).sum()):
        raise ValueError(f"{wrong} imaginary frequencies: not at a minimum")
    across = np.linalg.svd(atoms.positions - atoms.positions.mean(0))[1][1]
    gas = IdealGasThermo(list(energies), "linear" if across < STRAIGHT else "nonlinear", atoms=atoms,
                         symmetrynumber=1, spin=0)
    warm, cool = (gas.get_enthalpy(TEMPERATURE + step, verbose=False) for step in (STEP, -STEP))
    return ((warm - cool) / (2 * STEP) - kB) / (kcal / mol / 1000)
