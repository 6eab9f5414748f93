"""Second derivatives of a Kohn-Sham energy: in an electric field, and along the vibrations of the nuclei."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.units import Bohr, Hartree
from numpy.typing import NDArray

from molflow.oracles.qm9_level import pyscf

TOLERANCE = 1e-3
"""Residual of the response: smaller ones move polarisabilities by 0.0001 Bohr³, larger ones by 0.001."""

VIBRATIONS_GRID = 2
"""PySCF's level for second derivatives, which feel a coarse grid: hydrogen cyanide's heat capacity is 0.02
cal/(mol K) too large on level 1."""


def polarisability(field: Any) -> float:
    """Isotropic polarisability, Bohr³, by coupled-perturbed Kohn-Sham equations.

    alpha_xy = -4 sum_ai h^x_ai U^y_ai with the field's matrix elements h = <a|r|i> between empty and occupied orbitals
    and the orbitals' response (ε_a - ε_i) U_ai + V[U]_ai = -h_ai (Gerratt, Mills, J. Chem. Phys. 49, 1719, 1968).

    Args:
        field: PySCF's converged RKS object.
    """
    occupied, empty = (field.mo_coeff[:, some] for some in (field.mo_occ > 0, field.mo_occ == 0))
    dipole = empty.T @ field.mol.intor_symmetric("int1e_r", comp=3) @ occupied
    numint, about = field._numint, (field.mol, field.grids, field.xc)
    kernel = numint.cache_xc_kernel(*about, field.mo_coeff, field.mo_occ, 0)
    exchange = numint.hybrid_coeff(field.xc)

    def potential(u: np.ndarray) -> np.ndarray:
        """Of the density's change c d' + d c', c the occupied orbitals and d their change. Fitted densities ask for
        products of orbitals with themselves: it is (c + d)(c + d)'/2 - (c - d)(c - d)'/2."""
        change = empty @ u.reshape(-1, *dipole.shape[1:])
        halves = np.concatenate([occupied + change, occupied - change])
        squares = pyscf().lib.tag_array(halves @ halves.swapaxes(1, 2), mo_coeff=halves,
                                        mo_occ=np.ones((len(halves), occupied.shape[1])))
        coulomb, same_spin = (np.subtract(*np.split(each, 2)) for each in field.get_jk(field.mol, squares, hermi=1))
        density = 2 * (change @ occupied.T + occupied @ change.swapaxes(1, 2))
        local = numint.nr_rks_fxc(*about, None, density, 0, 1, *kernel)
        return empty.T @ (local + coulomb - exchange / 2 * same_spin) @ occupied

    u, _ = pyscf().scf.cphf.solve(potential, field.mo_energy, field.mo_occ, dipole, tol=TOLERANCE)
    return -4 / 3 * float(np.vdot(dipole, u))


def hessian(field: Any) -> NDArray[np.float64]:
    """(3n, 3n) second derivatives of the energy by the nuclei, eV/Å²; ``field`` is PySCF's converged RKS object."""
    fine = field.copy()
    fine.grids = pyscf().dft.Grids(field.mol)
    fine.grids.level = VIBRATIONS_GRID
    fine.kernel(dm0=field.make_rdm1())
    blocks = fine.Hessian().kernel()
    return blocks.transpose(0, 2, 1, 3).reshape(3 * len(blocks), -1) * Hartree / Bohr**2
