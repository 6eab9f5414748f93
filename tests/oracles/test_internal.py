"""Minimisation in internal coordinates, on the surface of GFN1-xTB with GFN2-xTB's Hessian, as DFT's with it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import ase
import numpy as np
import pytest
from ase.calculators.calculator import CalculatorError
from ase.optimize import LBFGS
from tblite.ase import TBLite

from molflow.molecules.convert import Molecule
from molflow.oracles import relaxation, xtb
from molflow.oracles.internal import minimise
from molflow.oracles.relaxation import LOOSE_FORCE

FORMULAS = "H2O", "CH4", "H3N", "CHN", "C2H2", "CH2O", "C7H9NO", "C6H10N2", "C4H9N5"
"""HCN and acetylene are linear; C7H9NO is a cage; the last two have chains that turn."""


class Counting(TBLite):
    """How many geometries were asked for."""

    asked = 0

    def calculate(self, *args, **kwargs) -> None:
        self.asked += 1
        super().calculate(*args, **kwargs)


def shaken(molecule: Molecule) -> tuple[ase.Atoms, np.ndarray]:
    """Away from the minimum, with a calculator; and GFN2-xTB's Hessian there."""
    rng = np.random.default_rng(0)
    moved = replace(molecule, positions=molecule.positions + 0.03 * rng.standard_normal(molecule.positions.shape))
    atoms, hessian = moved.to_ase(), xtb.hessian(moved)
    atoms.calc = Counting(method="GFN1-xTB", verbosity=0)
    assert hessian is not None
    return atoms, hessian


def largest_force(atoms: ase.Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


@pytest.mark.parametrize("formula", FORMULAS)
def test_it_finds_the_minimum_that_lbfgs_finds(qm9: list[Molecule], formula: str) -> None:
    molecule = next(one for one in qm9 if one.formula == formula)
    atoms, hessian = shaken(molecule)
    other, _ = shaken(molecule)
    assert LBFGS(other, logfile=None).run(fmax=0.001, steps=300)
    done, energy = minimise(atoms, hessian, force=LOOSE_FORCE, steps=100)
    assert done and largest_force(atoms) <= 1.001 * LOOSE_FORCE
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    assert energy == pytest.approx(other.get_potential_energy(), abs=3e-3)
    np.testing.assert_allclose(atoms.get_all_distances(), other.get_all_distances(), atol=0.05)


def test_it_asks_for_fewer_forces(qm9: list[Molecule]) -> None:
    asked = {"internal": 0, "cartesian": 0}
    for molecule in (one for one in qm9 if one.formula in FORMULAS):
        atoms, hessian = shaken(molecule)
        other, _ = shaken(molecule)
        minimise(atoms, hessian, force=LOOSE_FORCE, steps=100)
        LBFGS(other, logfile=None).run(fmax=LOOSE_FORCE, steps=300)
        asked["internal"] += atoms.calc.asked
        asked["cartesian"] += other.calc.asked
    assert asked["internal"] < asked["cartesian"] / 1.5


def test_steps_that_run_out_and_calculators_that_give_up(qm9: list[Molecule], capfd: pytest.CaptureFixture) -> None:
    atoms, hessian = shaken(next(one for one in qm9 if one.formula == "C6H10N2"))
    done, energy = minimise(atoms, hessian, force=1e-6, steps=2)
    assert not done and energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)

    class Lost(TBLite):
        def calculate(self, *args, **kwargs) -> None:
            raise CalculatorError("lost")

    atoms.calc = Lost(method="GFN1-xTB", verbosity=0)
    with pytest.raises(CalculatorError, match="lost"):
        minimise(atoms, hessian, force=LOOSE_FORCE, steps=100)
    assert capfd.readouterr() == ("", "")


def test_one_atom_has_nothing_to_relax() -> None:
    neon = Molecule(np.zeros((1, 3)), np.array([10]), np.array([0]), np.zeros((1, 1), int))
    found = relaxation.follow(neon, TBLite(method="GFN1-xTB", verbosity=0), method="", version="", steps=10,
                              hessian=np.zeros((3, 3)))
    assert found.converged and found.strain == pytest.approx(0)


def test_geometric_is_missed_in_one_line() -> None:
    code = """
import sys
import numpy as np
from molflow.molecules.convert import Molecule
from molflow.oracles import internal
assert "geometric" not in sys.modules
sys.modules["geometric"] = None
try:
    internal.minimise(None, np.eye(3), force=1, steps=1)
except ValueError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "ExtraMissing geometric is not installed: `pip install 'molflow[oracles]'` brings it\n"
