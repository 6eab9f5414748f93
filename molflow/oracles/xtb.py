"""GFN2-xTB (Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652, 2019) by tblite."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ase.calculators.calculator import CalculatorError
from ase.units import Bohr, Debye, Hartree, kcal, mol
from numpy.typing import NDArray

from molflow.extras import needed
from molflow.molecules.convert import Molecule
from molflow.oracles import relaxation
from molflow.oracles.entry import charge_centre, unfit
from molflow.oracles.record import Properties, Relaxation
from molflow.oracles.vibrations import heat_capacity

METHOD = "GFN2-xTB"
FIELD = 0.002
"""Electric field of the polarisability, atomic units: weak enough for the dipole to be linear in it."""

FIELD_ACCURACY = 0.1
"""Of the self-consistent fields whose dipoles are subtracted, in tblite's units: with 1, which does for all else, a
polarisability of 130 Bohr³ is off by 0.04, with this by 0.003."""


def version() -> str:
    """Program and version. Raises ExtraMissing where it is not installed."""
    return "tblite {}.{}.{}".format(*_tblite().library.get_version())


def relax(molecule: Molecule, *, steps: int = relaxation.STEPS) -> Relaxation:
    """Relax all atoms by L-BFGS, in vacuum, without unpaired electrons, at the molecule's total formal charge.

    Args:
        molecule: any; elements up to radon.
        steps: most steps.

    Returns:
        The relaxation. A self-consistent field that does not converge, atoms on top of each other, positions that are
        not finite or steps that run out are its `fault`, never an exception.

    Raises:
        ExtraMissing: tblite is not installed.
    """
    calculator = _tblite().ase.TBLite(method=METHOD, verbosity=0)
    return relaxation.follow(molecule, calculator, method=METHOD, version=version(), steps=steps)


def hessian(molecule: Molecule) -> NDArray[np.float64] | None:
    """Second derivatives of the energy, (3n, 3n) in eV/Å², by central differences of forces; None if one of them cannot
    be calculated. Raises ExtraMissing: tblite is not installed."""
    from ase.vibrations import Vibrations  # only here: it takes a second to load

    atoms = molecule.to_ase()
    atoms.calc = _tblite().ase.TBLite(method=METHOD, verbosity=0)
    with TemporaryDirectory() as scratch:  # ASE keeps the forces in files
        vibrations = Vibrations(atoms, name=str(Path(scratch, "forces")))
        try:
            vibrations.run()
        except CalculatorError:
            return None
        return vibrations.get_vibrations().get_hessian_2d()


def properties(molecule: Molecule, *, relax: bool = False, alpha: bool = True, cv: bool = False,
               solvation: bool = False) -> Properties:
    """Energy, HOMO, LUMO, dipole, and if wanted polarisability, heat capacity and solvation, at the formal charge.

    The polarisability is the dipole's change in an electric field of ± `FIELD` along each axis; a minimal basis can
    follow the field only so far: for QM9's molecules it comes to a third of B3LYP's. Orbital energies, too, are on a
    scale of their own. Solvation is by the continuum ALPB (Ehlert, Stahn, Spicher, Grimme, J. Chem. Theory Comput. 17,
    4250, 2021), of the molecule as it stands: what it would gain by adapting to water is not in it.

    Args:
        molecule: closed shells; elements up to radon.
        relax: give the values of the relaxed molecule, and the relaxation.
        alpha: the polarisability, too: five times the time.
        cv: the heat capacity, too, at a minimum of the energy only: many times the time.
        solvation: the free energy of solvation in water, too: half the time more.

    Returns:
        The values. What cannot be calculated is a `fault`, never an exception.

    Raises:
        ExtraMissing: tblite is not installed.
    """
    begun, said = time.perf_counter(), version()
    path: Relaxation | None = None

    def result(fault: str, **values: float) -> Properties:
        return Properties(method=f"{METHOD}//{METHOD}" if relax else METHOD, version=said, relaxation=path,
                          seconds=time.perf_counter() - begun, fault=fault, **values)

    if fault := unfit(molecule):
        return result(fault)
    if relax:
        path = _relax(molecule)
        if path.fault or path.relaxed is None:
            return result(path.fault)
        molecule = path.relaxed
    wanted: dict[str, float] = {}
    try:
        free = _single_point(molecule)
        if alpha:
            wanted["alpha"] = _polarisability(molecule, free)
        if solvation:
            dissolved = _single_point(molecule, "alpb-solvation", "water", start=free)
            wanted["solvation"] = (dissolved.get("energy") - free.get("energy")) * Hartree * mol / kcal
        if cv:
            if (curvature := hessian(molecule)) is None:
                return result("calculation failed (no second derivatives)")
            wanted["cv"] = heat_capacity(molecule, curvature)
    except (RuntimeError, ValueError) as error:  # tblite's own exceptions are of these kinds
        return result(f"calculation failed ({error})")
    levels, occupied = free.get("orbital-energies"), round(free.get("orbital-occupations").sum() / 2)
    if occupied == len(levels):
        return result("no empty orbital in the basis")
    dipole = free.get("dipole") - molecule.charges.sum() * charge_centre(molecule) / Bohr
    return result("", energy=float(free.get("energy") * Hartree), homo=float(levels[occupied - 1] * Hartree),
                  lumo=float(levels[occupied] * Hartree), mu=float(np.linalg.norm(dipole) * Bohr / Debye), **wanted)


_relax = relax  # `properties` has an argument of this name


def _polarisability(molecule: Molecule, free: Any) -> float:
    """Isotropic, Bohr³; ``free`` is the result without a field."""
    def along(field: NDArray[np.float64]) -> float:
        # to 0.8 the interface hands on what it is given, and C wants its own array
        given = _tblite().library.ffi.new("double[3]", field.tolist())
        found = _single_point(molecule, "electric-field", given, start=free, accuracy=FIELD_ACCURACY)
        return float(found.get("dipole") @ field)

    return sum(along(field) + along(-field) for field in FIELD * np.eye(3)) / (6 * FIELD**2)


def _single_point(molecule: Molecule, *interaction: Any, start: Any = None, accuracy: float = 1.0) -> Any:
    """tblite's result.

    Args:
        interaction: with what, and its arguments, as tblite's calculator is told.
        start: a result to begin with, which is left as it is.
        accuracy: tblite's factor on its thresholds.
    """
    interface = _tblite().interface
    calculator = interface.Calculator(METHOD, molecule.numbers, molecule.positions / Bohr,
                                      float(molecule.charges.sum()))
    calculator.set("verbosity", 0)
    calculator.set("accuracy", accuracy)
    if interaction:
        calculator.add(*interaction)
    return calculator.singlepoint(start, copy=True)


def _tblite() -> Any:
    """The package, with its modules `ase`, `interface` and `library`."""
    with needed():
        import tblite.ase
        import tblite.interface
        import tblite.library
    return tblite
