"""B3LYP/6-31G(2df,p), the level of theory QM9 was made at, by PySCF."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import Calculator, CalculatorError, all_changes
from ase.units import Bohr, Hartree

from molflow.molecules.convert import Molecule
from molflow.molecules.geometry import keeps_bonds
from molflow.oracles import qm9_level, relaxation, xtb
from molflow.oracles.entry import charge_centre, unfit
from molflow.oracles.record import Properties, Relaxation
from molflow.oracles.response import hessian, polarisability
from molflow.oracles.vibrations import heat_capacity

version = qm9_level.version


def relax(molecule: Molecule, *, density_fitting: bool = True, steps: int = relaxation.STEPS) -> Relaxation:
    """Relax all atoms in vacuum, closed-shell, at the molecule's total formal charge, to Gaussian's criterion.

    It begins at GFN2-xTB's minimum, or where bonds have changed on the way there at the molecule as it is, with
    GFN2-xTB's Hessian there, in internal coordinates: an eighth of the steps.

    Args:
        molecule: of hydrogen, carbon, nitrogen, oxygen, fluorine.
        density_fitting: as `properties`.
        steps: most steps.

    Returns:
        The relaxation. What cannot be calculated is its `fault`, never an exception.

    Raises:
        ExtraMissing: PySCF, tblite or geomeTRIC is not installed.
    """
    level, said = qm9_level.method(density_fitting), version()
    if fault := _refused(molecule):
        return Relaxation(method=level, version=said, seconds=0.0, fault=fault)
    near = xtb.relax(molecule).relaxed
    if near is None or not keeps_bonds(near):
        near = molecule
    return relaxation.follow(molecule, _Forces(molecule, density_fitting), method=level, version=said, steps=steps,
                             force=relaxation.LOOSE_FORCE, start=near.positions, hessian=xtb.hessian(near))


def properties(
    molecule: Molecule,
    *,
    relax: bool = False,
    alpha: bool = True,
    cv: bool = False,
    density_fitting: bool = True,
) -> Properties:
    """Energy, HOMO, LUMO, dipole, and if wanted polarisability and heat capacity, at the total formal charge.

    Args:
        molecule: closed shells, of hydrogen, carbon, nitrogen, oxygen, fluorine. The singlet is taken for the ground
            state.
        relax: give the values of the relaxed molecule, and the relaxation: five to ten times the time.
        alpha: the polarisability, too: three to four times the time.
        cv: the heat capacity, too, at a minimum of the energy only: many times the time.
        density_fitting: Coulomb and exchange by fitted densities: two to three times faster, orbital energies off by
            about 0.1 meV.

    Returns:
        The values. What cannot be calculated is a `fault`, never an exception.

    Raises:
        ExtraMissing: PySCF, or to relax tblite or geomeTRIC, is not installed.
    """
    begun, said, level = time.perf_counter(), version(), qm9_level.method(density_fitting)
    path: Relaxation | None = None
    values: dict[str, float] = {}

    def result(fault: str) -> Properties:
        return Properties(method=f"{level}//{level}" if relax else level, version=said, relaxation=path,
                          seconds=time.perf_counter() - begun, fault=fault, **values)

    if fault := _refused(molecule):
        return result(fault)
    if relax:
        path = _relax(molecule, density_fitting=density_fitting)
        if path.fault or path.relaxed is None:
            return result(path.fault)
        molecule = path.relaxed
    try:
        field = qm9_level.solve(molecule, density_fitting=density_fitting)
        occupied = field.mol.nelectron // 2
        dipole = field.dip_moment(unit="Debye", origin=charge_centre(molecule) / Bohr, verbose=0)
        values |= {"energy": float(field.e_tot * Hartree), "homo": float(field.mo_energy[occupied - 1] * Hartree),
                   "lumo": float(field.mo_energy[occupied] * Hartree), "mu": float(np.linalg.norm(dipole))}
        if alpha:
            values["alpha"] = polarisability(field)
        if cv:
            values["cv"] = heat_capacity(molecule, hessian(field))
    except (CalculatorError, RuntimeError, ValueError, ArithmeticError) as error:
        return result(f"calculation failed ({error})")
    return result("")


_relax = relax  # `properties` has an argument of this name


def _refused(molecule: Molecule) -> str:
    """Why there can be no calculation of this molecule; empty if there can be one."""
    if strange := qm9_level.unknown_elements(molecule):
        return f"QM9's basis has no {', '.join(strange)}"
    return unfit(molecule)


class _Forces(Calculator):
    """Energy and forces of a molecule for ASE, what is asked for alone: forces take as long as the field that they
    belong to. Each self-consistent field begins with the density of the last."""

    def __init__(self, molecule: Molecule, density_fitting: bool) -> None:
        self.implemented_properties = ["energy", "forces"]
        super().__init__()
        self.molecule = molecule
        self.density_fitting = density_fitting
        self.density: np.ndarray | None = None
        self.field: Any = None

    def calculate(self, atoms: ase.Atoms | None = None, properties: Any = None,
                  system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        if system_changes or self.field is None:
            self.field = None  # half a gigabyte, which the next one need not wait beside
            if fault := unfit(moved := replace(self.molecule, positions=self.atoms.positions)):
                raise CalculatorError(fault)
            self.field = qm9_level.solve(moved, density_fitting=self.density_fitting, guess=self.density)
            self.density = self.field.make_rdm1()
            self.results["energy"] = float(self.field.e_tot * Hartree)
        if "forces" in (properties or ()):
            self.results["forces"] = -self.field.nuc_grad_method().kernel() * Hartree / Bohr
