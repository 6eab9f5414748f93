"""QM9's own level of theory, B3LYP/6-31G(2df,p) as Gaussian 09 runs it, in PySCF.

Three things differ from what PySCF has under the same names. The basis is 6-31G with polarisation functions by Frisch,
Pople, Binkley (J. Chem. Phys. 80, 3265, 1984), not 6-311G's. Its d functions are Cartesian and its f functions
spherical ("6D7F"). B3LYP's local correlation is VWN's formula III, fitted to the RPA.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import CalculatorError
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.linalg import block_diag

from molflow.extras import needed
from molflow.molecules.convert import Molecule

METHOD = "B3LYP/6-31G(2df,p)"
FITTED_METHOD = "DF-B3LYP/6-31G(2df,p)"
"""Coulomb and exchange from fitted densities (def2-universal-jkfit)."""

FUNCTIONAL = "b3lypg"
"""PySCF's name for the B3LYP of Gaussian whatever its settings are; "b3lyp" has changed its meaning before."""

GRID = 1
"""PySCF's level: finer ones move orbital energies by 0.05 meV and dipoles by 0.0001 D, a tenth of what QM9's digits
tell, at two to three times the time."""

P_OF_HYDROGEN = 1.1
D_OF_OTHERS = (1.6, 0.4)
F_OF = {6: 0.8, 7: 1.0, 8: 1.4, 9: 1.85}
"""Exponents of the polarisation functions; elements that are not here have none."""


def pyscf() -> Any:
    """The package, with its modules `dft`, `gto`, `hessian` and `scf`. Raises ExtraMissing."""
    with needed(), _processor_known():
        import pyscf.dft
        import pyscf.gto
        import pyscf.hessian
        import pyscf.scf.cphf
    return pyscf


@contextmanager
def _processor_known() -> Iterator[None]:
    """The OpenBLAS of 2018 in PySCF's wheels takes processors younger than itself for one without AVX: told that they
    have AVX2, it multiplies matrices three times as fast. It asks when it is loaded, and others need not be told."""
    cpuinfo = Path("/proc/cpuinfo")
    if "OPENBLAS_CORETYPE" in os.environ or not cpuinfo.exists() or " avx2 " not in cpuinfo.read_text():
        yield
        return
    os.environ["OPENBLAS_CORETYPE"] = "Haswell"
    try:
        yield
    finally:
        del os.environ["OPENBLAS_CORETYPE"]


def cupy() -> Any | None:
    """CuPy, if gpu4pyscf is installed and there is a GPU for the self-consistent field; None otherwise."""
    try:
        import cupy
        import gpu4pyscf  # noqa: F401  adds to_gpu() to PySCF's objects
    except ImportError:
        return None
    return cupy if cupy.cuda.is_available() else None


def version() -> str:
    """Programs and versions. Raises ExtraMissing where PySCF is not installed."""
    said = f"PySCF {pyscf().__version__}"
    if cupy() is not None:
        import gpu4pyscf

        said += f", gpu4pyscf {gpu4pyscf.__version__}"
    return said


def method(density_fitting: bool) -> str:
    """Level of theory as it stands in records."""
    return FITTED_METHOD if density_fitting else METHOD


def unknown_elements(molecule: Molecule) -> list[str]:
    """Symbols of the elements that QM9's level says nothing about."""
    return [chemical_symbols[z] for z in sorted(set(molecule.numbers.tolist()) - {1, *F_OF})]


def solve(molecule: Molecule, *, density_fitting: bool, guess: NDArray[np.float64] | None = None) -> Any:
    """The converged Kohn-Sham field of a closed-shell molecule.

    Args:
        molecule: of hydrogen, carbon, nitrogen, oxygen, fluorine.
        density_fitting: faster and a little less exact.
        guess: density matrix to begin with, of the same molecule at another geometry.

    Returns:
        PySCF's RKS object; its orbitals are over Cartesian functions and have no part that is not of 6D7F.

    Raises:
        CalculatorError: the self-consistent field does not converge, or PySCF gives up.
    """
    program = pyscf()
    try:
        mole = program.gto.M(atom=list(zip(molecule.numbers.tolist(), molecule.positions.tolist(), strict=True)),
                             unit="Angstrom", basis=_basis(molecule), cart=True, spin=0,
                             charge=int(molecule.charges.sum()), verbose=0, parse_arg=False, dump_input=False)
        field = program.dft.RKS(mole, xc=FUNCTIONAL)
        field.grids.level, field.chkfile = GRID, None
        if density_fitting:
            field = field.density_fit(auxbasis="def2-universal-jkfit")
        _converge(field, guess)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise CalculatorError(f"PySCF: {error}") from error
    if not field.converged:
        raise CalculatorError("SCF not converged")
    return field


def _converge(field: Any, guess: NDArray[np.float64] | None) -> None:
    """Solve for the orbitals: on a GPU, where there is one, with what follows on the processor again."""
    pure_f, device = _pure_f(field.mol), cupy()
    engine, array = (field, np) if device is None else (field.to_gpu(), device)
    within = engine.check_linear_dependency

    def independent(overlap: Any, verbose: object = None) -> Any:
        pure = array.asarray(pure_f)
        return pure @ within(pure.T @ overlap @ pure)

    # PySCF diagonalises within the span of what this returns, made to leave linearly dependent functions out. It leaves
    # out the parts of the f shells that have no f, and all that follows (gradients, too) goes by orbitals.
    engine.check_linear_dependency = independent
    engine.kernel(dm0=guess)
    if device is not None:
        for name in ("mo_coeff", "mo_energy", "mo_occ"):
            setattr(field, name, device.asnumpy(getattr(engine, name)))
        field.e_tot, field.converged = float(engine.e_tot), bool(engine.converged)


def _basis(molecule: Molecule) -> dict[str, Any]:
    load = pyscf().gto.basis.load
    basis = {}
    for z in set(molecule.numbers.tolist()):
        polarisation = ([[1, [P_OF_HYDROGEN, 1.0]]] if z == 1 else
                        [*([2, [exponent, 1.0]] for exponent in D_OF_OTHERS), [3, [F_OF[z], 1.0]]])
        basis[chemical_symbols[z]] = load("6-31g", chemical_symbols[z]) + polarisation
    return basis


def _pure_f(mole: Any) -> NDArray[np.float64]:
    """(Cartesian functions, 6D7F functions): one basis in terms of the other."""
    seven_of_ten = pyscf().gto.cart2sph(3, normalized="sp")
    momenta = [mole.bas_angular(shell) for shell in range(mole.nbas) for _ in range(mole.bas_nctr(shell))]
    return block_diag(*(seven_of_ten if momentum == 3 else np.eye((momentum + 1) * (momentum + 2) // 2)
                        for momentum in momenta))
