"""Whether positions and bonds say the same."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

from molflow.molecules.convert import Molecule

LONGEST, SHORTEST = 1.25, 1.1
"""In sums of covalent radii: a bond is lost beyond the one, made below the other. QM9's bonds reach to 1.15 of them,
its pairs without a bond begin at 1.17."""


def stretched(molecule: Molecule) -> float:
    """Of the bond that fits worst, how much longer or shorter it is than the sum of covalent radii, as a share of it; 0
    without bonds."""
    first, second = np.triu(molecule.bonds, 1).nonzero()
    wanted = covalent_radii[molecule.numbers[first]] + covalent_radii[molecule.numbers[second]]
    lengths = np.linalg.norm(molecule.positions[first] - molecule.positions[second], axis=-1)
    return float(np.abs(lengths / wanted - 1).max(initial=0.0))


def keeps_bonds(molecule: Molecule) -> bool:
    """Whether the positions still show the bonds that the molecule is said to have, and no others."""
    radii = covalent_radii[molecule.numbers]
    apart = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=-1)
    ratio = (apart / (radii[:, None] + radii))[np.triu_indices(len(radii), 1)]
    bonded = molecule.bonds[np.triu_indices(len(radii), 1)] > 0
    return bool((ratio[bonded] < LONGEST).all() and (ratio[~bonded] > SHORTEST).all())
