"""What every answer of an oracle says of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from molflow.molecules.convert import Molecule

UNITS = {"energy": "eV", "homo": "eV", "lumo": "eV", "gap": "eV", "mu": "D", "alpha": "Bohr^3", "cv": "cal/(mol K)",
         "solvation": "kcal/mol"}
"""Of the values of `Properties`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calculation:
    """Where a calculated value comes from. Each kind of answer adds its values, with their units.

    A calculation that fails is an answer too: it has a fault, and NaN or None where a value would stand.

    Attributes:
        method: level of theory, e.g. "GFN2-xTB"; "A//B" is A at the geometry that B relaxed.
        version: program and version, e.g. "tblite 0.8.0".
        seconds: wall-clock time.
        fault: why it did not converge, in a few words, details in brackets; empty if it did.
    """

    method: str
    version: str
    seconds: float
    fault: str = ""

    @property
    def converged(self) -> bool:
        return not self.fault


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Properties(Calculation):
    """What the electrons of a molecule make of it, in the units of QM9's tables (`UNITS`); NaN if not calculated.

    Attributes:
        energy: total energy of electrons and nuclei, eV.
        homo, lumo: energies of the highest occupied and lowest empty orbital, eV.
        mu: length of the dipole, D; an ion's is about its centre of nuclear charge, as in Gaussian.
        alpha: isotropic polarisability, a third of the trace, Bohr³.
        cv: heat capacity at 298.15 K, cal/(mol K).
        solvation: free energy of solvation in water, kcal/mol, from 1 mol/l of gas to 1 mol/l in water.
        relaxation: what came before, if the values are those of the relaxed molecule.
    """

    energy: float = math.nan
    homo: float = math.nan
    lumo: float = math.nan
    mu: float = math.nan
    alpha: float = math.nan
    cv: float = math.nan
    solvation: float = math.nan
    relaxation: Relaxation | None = None

    @property
    def gap(self) -> float:
        """Energy between the two orbitals, eV."""
        return self.lumo - self.homo
