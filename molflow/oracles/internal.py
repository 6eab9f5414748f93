"""Minimisation in delocalised internal coordinates (Baker, Kessi, Delley, J. Chem. Phys. 105, 192, 1996) by geomeTRIC
(Wang, Song, J. Chem. Phys. 144, 214108, 2016), for forces that are dear."""

from __future__ import annotations

import logging
from tempfile import TemporaryDirectory
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import CalculatorError
from ase.units import Bohr, Hartree
from numpy.typing import NDArray

from molflow.extras import needed


def minimise(atoms: ase.Atoms, hessian: NDArray[np.float64], *, force: float, steps: int) -> tuple[bool, float]:
    """Move the atoms until no force is larger; whether that was reached, and the energy in eV.

    From GFN2-xTB's minimum to GFN1-xTB's it takes 5 steps on average for generated molecules of 14 to 20 atoms, 18 at
    most: half of what BFGS takes in Cartesian coordinates.

    Args:
        atoms: two or more, with a calculator; moved in place.
        hessian: (3n, 3n) second derivatives to begin with, eV/Å².
        force: largest one on an atom when done, eV/Å.
        steps: most steps.

    Raises:
        CalculatorError: the calculator's own, or geomeTRIC gives up.
        ExtraMissing: geomeTRIC is not installed.
    """
    geometric = _geometric()
    molecule = geometric.molecule.Molecule()
    molecule.elem, molecule.xyzs = atoms.get_chemical_symbols(), [atoms.positions.copy()]
    params = geometric.params.OptParams(frequency=False, maxiter=steps)
    params.hess_data = hessian * Bohr**2 / Hartree
    try:
        with TemporaryDirectory() as scratch:  # geomeTRIC wants a folder for files, whatever the engine
            coordinates = geometric.internal.DelocalizedInternalCoordinates(molecule, build=True, connect=True)
            engine = geometric.ase_engine.EngineASE(molecule, atoms.calc)
            search = geometric.optimize.Optimizer(atoms.positions.ravel() / Bohr, molecule, coordinates, engine,
                                                  scratch, params, print_info=False)
            search.calcEnergyForce()
            search.prepareFirstStep()
            state = geometric.optimize.OPT_STATE
            while not (done := _largest(search) <= force) and search.state not in (state.CONVERGED, state.FAILED):
                search.step()
                if search.state == state.NEEDS_EVALUATION:
                    search.calcEnergyForce()
                    search.evaluateStep()
    except (geometric.errors.Error, ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise CalculatorError(f"geomeTRIC: {error or type(error).__name__}") from error
    atoms.positions = search.X.reshape(-1, 3) * Bohr
    return done, search.E * Hartree


def _largest(search: Any) -> float:
    """Largest force on an atom, eV/Å; steps that were taken back count as what they were taken back to."""
    return float(np.linalg.norm(search.gradx.reshape(-1, 3), axis=1).max()) * Hartree / Bohr


def _geometric() -> Any:
    """The package, with its modules, silent."""
    with needed():
        import geometric
        import geometric.ase_engine
        import geometric.errors
        import geometric.internal
        import geometric.molecule
        import geometric.optimize
        import geometric.params
    logging.getLogger("geometric").setLevel(logging.ERROR)
    for name in ("nifty", "molecule", "internal", "optimize", "params", "step", "ic_tools"):
        logging.getLogger(f"geometric.{name}").setLevel(logging.ERROR)
    return geometric
