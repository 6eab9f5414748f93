"""Heat capacities against closed forms: one spring, in a line and in the plane."""

from __future__ import annotations

import numpy as np
import pytest
from ase.units import _amu, _e, _hbar, kB, kcal, mol

from molflow.molecules.convert import Molecule
from molflow.oracles.vibrations import TEMPERATURE, heat_capacity

R = kB / (kcal / mol / 1000)


def springs(positions: np.ndarray, stiffness: float) -> tuple[Molecule, np.ndarray]:
    """Atoms of carbon that lie ``positions`` apart, each pair with a spring at its length: E = k (r - r0)² / 2."""
    n = len(positions)
    hessian = np.zeros((n, n, 3, 3))
    for i in range(n):
        for j in range(i):
            along = (positions[i] - positions[j]) / np.linalg.norm(positions[i] - positions[j])
            part = stiffness * np.outer(along, along)
            hessian[i, i] += part
            hessian[j, j] += part
            hessian[i, j] -= part
            hessian[j, i] -= part
    zeros = np.zeros(n, dtype=np.int64)
    molecule = Molecule(positions, zeros + 6, zeros, np.zeros((n, n), dtype=np.int64))
    return molecule, hessian.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def einstein(stiffness: float, mass: float) -> float:
    """Of one mode, in cal/(mol K); eV/Å² and atomic units."""
    x = _hbar * np.sqrt(stiffness * _e * 1e20 / (mass * _amu)) / (_e * kB * TEMPERATURE)
    return R * (x / 2 / np.sinh(x / 2)) ** 2


@pytest.mark.parametrize("stiffness", [2.0, 20.0, 200.0])
def test_two_atoms_turn_about_two_axes_and_vibrate_once(stiffness: float) -> None:
    molecule, hessian = springs(np.array([[0.0, 0, 0], [0.3, 0.4, 1.2]]), stiffness)
    assert heat_capacity(molecule, hessian) == pytest.approx(2.5 * R + einstein(stiffness, 6), abs=1e-4)


def test_a_triangle_turns_about_three_axes_and_vibrates_three_times() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(0.75), 0]])
    molecule, hessian = springs(corners, 10)
    # a triangle breathes with ω² = 3k/m; its two other modes have half of that
    expected = 3 * R + einstein(30, 12) + 2 * einstein(15, 12)
    assert heat_capacity(molecule, hessian) == pytest.approx(expected, abs=1e-4)


def test_off_a_minimum_there_is_none() -> None:
    molecule, hessian = springs(np.array([[0.0, 0, 0], [0, 0, 1.2]]), -20)
    with pytest.raises(ValueError, match="1 imaginary"):
        heat_capacity(molecule, hessian)
