"""Which molecules a calculation of orbitals can be begun with, and where the dipole of an ion is measured from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from molflow.molecules.convert import Molecule

CLOSEST = 0.3
"""Å. Nothing bound is nearer than the 0.74 Å of H2; nuclei much nearer make overlap matrices singular."""


def unfit(molecule: Molecule) -> str:
    """Why there can be no closed-shell calculation of this molecule; empty if there can be one."""
    if not len(molecule.numbers):
        return "no atoms"
    if not np.isfinite(molecule.positions).all():
        return "positions are not finite"
    if len(molecule.numbers) > 1 and pdist(molecule.positions).min() < CLOSEST:
        return f"atoms on top of each other (closer than {CLOSEST} Å)"
    electrons = int(molecule.numbers.sum() - molecule.charges.sum())
    if electrons < 1:
        return "no electrons"
    return f"open shell ({electrons} electrons)" if electrons % 2 else ""


def charge_centre(molecule: Molecule) -> NDArray[np.float64]:
    """(3,) centre of nuclear charge, Å: Gaussian's origin, which decides about the dipole of an ion alone."""
    return molecule.numbers @ molecule.positions / molecule.numbers.sum()
