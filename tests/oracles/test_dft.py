"""B3LYP/6-31G(2df,p) against QM9's own numbers, itself by finite differences, and what becomes of what cannot be."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase.units import Bohr

from molflow.molecules.convert import Molecule
from molflow.oracles import dft
from molflow.oracles.qm9_level import FITTED_METHOD, METHOD, solve
from molflow.oracles.record import UNITS
from molflow.oracles.response import polarisability

EV_PER_HARTREE = 27.2114

# QM9's table: HOMO, LUMO (Hartree), dipole (D), polarisability (Bohr³), Cv (cal/(mol K)).
TABLE = {
    "CH4": (-0.3877, 0.1171, 0.0, 13.21, 6.469),
    "H2O": (-0.2928, 0.0687, 1.8511, 6.31, 6.002),
    "CHN": (-0.3604, 0.0191, 2.8937, 12.99, 6.278),
}
DIGIT = 0.5e-4 * EV_PER_HARTREE
"""eV: half of the table's last digit."""


@pytest.fixture(scope="module")
def small(qm9: list[Molecule]) -> dict[str, Molecule]:
    return {formula: next(molecule for molecule in qm9 if molecule.formula == formula) for formula in TABLE}


@pytest.mark.parametrize("formula", TABLE)
def test_the_numbers_are_those_of_qm9(small: dict[str, Molecule], formula: str) -> None:
    homo, lumo, mu, alpha, cv = TABLE[formula]
    with_cv = formula != "CH4"  # which takes as long as the other two, one of them linear, together
    found = dft.properties(small[formula], cv=with_cv, density_fitting=False)
    assert found.converged and found.method == METHOD and found.version.startswith("PySCF 2.")
    assert found.homo == pytest.approx(EV_PER_HARTREE * homo, abs=DIGIT + 2e-4)
    assert found.lumo == pytest.approx(EV_PER_HARTREE * lumo, abs=DIGIT + 2e-4)
    assert found.gap == found.lumo - found.homo
    assert found.mu == pytest.approx(mu, abs=3e-4)
    assert found.alpha == pytest.approx(alpha, abs=0.008)
    assert found.cv == pytest.approx(cv if with_cv else math.nan, abs=0.003, nan_ok=True)


def test_density_fitting_is_said_and_changes_little(small: dict[str, Molecule]) -> None:
    exact, fitted = (dft.properties(small["CHN"], density_fitting=fitting) for fitting in (False, True))
    assert fitted.method == FITTED_METHOD != exact.method
    for name, most in (("homo", 1e-3), ("lumo", 1e-3), ("mu", 1e-3), ("alpha", 5e-3)):
        assert 0 < abs(getattr(fitted, name) - getattr(exact, name)) < most
    assert math.isnan(fitted.cv)


def test_polarisability_is_the_dipoles_change_in_a_field(small: dict[str, Molecule]) -> None:
    field = solve(small["H2O"], density_fitting=True)
    positions, core = field.mol.intor("int1e_r"), field.get_hcore()
    strength, trace = 2e-3, 0.0
    for along in positions:
        dipole = []
        for sign in (1, -1):
            polarised = field.copy()
            # an electron's energy in a field F is +F.r: its charge is -1
            polarised.get_hcore = lambda *_, sign=sign, along=along: core + sign * strength * along
            polarised.kernel(dm0=field.make_rdm1())
            dipole.append(-np.vdot(along, polarised.make_rdm1()))
        trace += (dipole[0] - dipole[1]) / (2 * strength)
    assert polarisability(field) == pytest.approx(trace / 3, abs=2e-3)


def test_forces_are_the_energys_slope(small: dict[str, Molecule]) -> None:
    water = small["H2O"]
    shaken = water.positions + 0.05 * np.random.default_rng(0).standard_normal(water.positions.shape)
    slope = solve(replace(water, positions=shaken), density_fitting=False).nuc_grad_method().kernel()[1, 0]
    step = np.zeros_like(shaken)
    step[1, 0] = 1e-3
    up, down = (solve(replace(water, positions=shaken + sign * step), density_fitting=False).e_tot for sign in (1, -1))
    assert slope == pytest.approx((up - down) / (2e-3 / Bohr), abs=1e-4)
    assert abs(slope) > 1e-3


def test_a_distorted_molecule_finds_qm9s_geometry(small: dict[str, Molecule]) -> None:
    water = small["H2O"]
    found = dft.properties(replace(water, positions=1.05 * water.positions), relax=True, alpha=False)
    path = found.relaxation
    assert found.converged and path is not None and path.relaxed is not None
    assert found.method == f"{FITTED_METHOD}//{FITTED_METHOD}" and found.energy == pytest.approx(path.energy_after)
    assert path.strain > 0.02 and 0.01 < path.rmsd < 0.1

    def distances(molecule: Molecule) -> np.ndarray:
        return np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=-1)

    np.testing.assert_allclose(distances(path.relaxed), distances(water), atol=2e-3)
    assert found.mu == pytest.approx(TABLE["H2O"][2], abs=5e-3)


def test_ions_have_their_charge_and_a_dipole_that_stays_when_they_move(small: dict[str, Molecule]) -> None:
    ammonium = replace(small["CH4"], numbers=np.array([7, 1, 1, 1, 1]), charges=np.array([1, 0, 0, 0, 0]))
    here, there = (dft.properties(replace(ammonium, positions=ammonium.positions + shift), alpha=False)
                   for shift in (0.0, 10.0))
    assert here.converged and here.homo < -15
    assert here.mu < 1e-3 and there.mu == pytest.approx(here.mu, abs=1e-3)


def test_what_cannot_be_calculated_is_a_result(small: dict[str, Molecule]) -> None:
    methane = small["CH4"]
    on_top, lost = methane.positions.copy(), methane.positions.copy()
    on_top[1] = on_top[2]
    lost[0, 0] = np.nan
    none = np.zeros(0, dtype=np.int64)
    for molecule, fault in ((replace(methane, positions=on_top), "atoms on top of each other"),
                            (replace(methane, positions=lost), "positions are not finite"),
                            (replace(methane, charges=np.array([1, 0, 0, 0, 0])), "open shell (9 electrons)"),
                            (replace(methane, numbers=np.array([14, 1, 1, 92, 1])), "QM9's basis has no Si, U"),
                            (replace(methane, charges=methane.numbers), "no electrons"),
                            (Molecule(np.zeros((0, 3)), none, none, none.reshape(0, 0)), "no atoms")):
        for found in (dft.properties(molecule), dft.relax(molecule)):
            assert not found.converged and found.fault.startswith(fault)
        assert all(math.isnan(getattr(dft.properties(molecule), name)) for name in UNITS)
        assert dft.relax(molecule).relaxed is None


def test_there_is_no_heat_capacity_off_a_minimum(small: dict[str, Molecule]) -> None:
    planar = np.array([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0]])
    found = dft.properties(replace(small["H2O"], positions=planar), cv=True, alpha=False)
    assert not found.converged and "imaginary" in found.fault and math.isnan(found.cv)


def test_a_field_that_does_not_converge_is_a_result(small: dict[str, Molecule]) -> None:
    scattered = replace(small["CH4"], numbers=np.array([6, 1, 8, 1, 1]), positions=1000 * small["CH4"].positions,
                        charges=np.array([1, 0, 0, 0, 0]))
    found = dft.properties(scattered)
    assert found.fault == "calculation failed (SCF not converged)" and math.isnan(found.energy)


def test_pyscf_is_loaded_when_it_is_used_and_missed_in_one_line() -> None:
    code = """
import sys
import numpy as np
from molflow.molecules.convert import Molecule
from molflow.oracles import dft
assert "pyscf" not in sys.modules
sys.modules["pyscf"] = None
hydrogen = Molecule(np.eye(2, 3), np.array([1, 1]), np.array([0, 0]), np.array([[0, 1], [1, 0]]))
for calculate in (dft.properties, dft.relax):
    try:
        calculate(hydrogen)
    except ValueError as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == 2 * "ExtraMissing pyscf is not installed: `pip install 'molflow[oracles]'` brings it\n"
