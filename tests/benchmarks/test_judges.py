"""PoseBusters and xTB on real molecules, damaged ones and many at once; the pool that they share."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from posebusters import PoseBusters

from benchmarks import plausibility, strain
from benchmarks.pool import processes, spread
from molflow.molecules.convert import Molecule


def small(molecules: list[Molecule], n: int) -> list[Molecule]:
    """Of 9 to 12 atoms: quick, and with more than one heavy atom."""
    return [molecule for molecule in molecules if 9 <= len(molecule.numbers) <= 12][:n]


def test_verdicts_are_posebusters_own(qm9: list[Molecule]) -> None:
    for molecule in small(qm9, 3):
        theirs = PoseBusters("mol").bust([molecule.to_rdkit()]).iloc[0].to_dict()
        assert plausibility.checks(molecule) == theirs
        assert all(theirs.values())


def test_damage_is_found(qm9: list[Molecule]) -> None:
    molecule = small(qm9, 1)[0]
    stretched = plausibility.checks(replace(molecule, positions=1.6 * molecule.positions))
    assert not stretched["bond_lengths"] and stretched["sanitization"]
    radical = molecule.bonds.copy()
    hydrogen = int(np.flatnonzero(molecule.numbers == 1)[0])
    radical[hydrogen] = radical[:, hydrogen] = 0
    verdict = plausibility.checks(replace(molecule, bonds=radical))
    assert not verdict["no_radicals"] and not verdict["all_atoms_connected"]
    crowded = molecule.bonds.copy()
    crowded[hydrogen, :4] = crowded[:4, hydrogen] = np.where(np.arange(4) == hydrogen, 0, 3)
    verdict = plausibility.checks(replace(molecule, bonds=crowded))
    # Its geometry is fine, but cannot be checked.
    assert not verdict["sanitization"] and not verdict["bond_lengths"] and not verdict["internal_energy"]


def test_every_broken_molecule_is_in_the_share_that_passes(qm9: list[Molecule]) -> None:
    molecule = small(qm9, 1)[0]
    broken = replace(molecule, positions=1.6 * molecule.positions)
    with ThreadPoolExecutor(1) as pool:
        found = plausibility.measure(pool, [molecule, broken, molecule, broken], "test")
    assert found["molecules"] == 4 and found["all"] == 0.5 and found["all_standard_error"] == 0.25
    assert found["checks"]["bond_lengths"] == 0.5 and found["checks"]["sanitization"] == 1
    shown = plausibility.table({"version": "0", "generated": found})
    assert shown.rows[0] == ["all, and valid", "50.0 ± 25"] and ["bond lengths", "50.0"] in shown.rows


def test_qm9_shows_its_bonds_and_a_damaged_molecule_does_not(qm9: list[Molecule]) -> None:
    assert all(map(strain.keeps_bonds, qm9))
    molecule = small(qm9, 1)[0]
    for factor in (0.7, 1.4):
        assert not strain.keeps_bonds(replace(molecule, positions=factor * molecule.positions))
    i, j = np.argwhere(np.triu(molecule.bonds))[0]
    bonds = molecule.bonds.copy()
    bonds[i, j] = bonds[j, i] = 0  # a bond that is seen but not said
    assert not strain.keeps_bonds(replace(molecule, bonds=bonds))


def test_strain_is_measured_and_failures_are_named(qm9: list[Molecule]) -> None:
    methane = next(molecule for molecule in qm9 if molecule.formula == "CH4")
    strained = replace(methane, positions=1.05 * methane.positions)
    lost = replace(methane, positions=np.full_like(methane.positions, np.nan))
    with ThreadPoolExecutor(1) as pool:
        found, values = strain.measure(pool, [methane, strained, lost], "test")
    assert len(values) == 2 and 0 <= values[0] < 1 < values[1] < 20  # kcal/mol
    assert found["strain_mean"] == found["strain_median"] == pytest.approx(sum(values) / 2)
    assert found["molecules"] == 3 and found["keeps_bonds"] == pytest.approx(2 / 3)
    assert found["failed"] == {"positions are not finite": 1}
    assert found["failures"] == [{"smiles": "C", "fault": "positions are not finite"}]
    shown = strain.table({"method": "GFN2-xTB", "version": "tblite", "generated": found})
    assert ["failed", "1 positions are not finite"] in shown.rows


def test_an_ev_is_23_kcal_a_mol() -> None:
    assert pytest.approx(23.0605, abs=1e-4) == strain.KCAL_PER_MOL


def test_work_is_done_in_order_by_other_processes_of_one_thread() -> None:
    with processes() as pool:
        assert spread(pool, abs, range(-5, 0), "test", chunk=2) == [5, 4, 3, 2, 1]
        threads, parents = (spread(pool, eval, [f"__import__('os').{text}"] * 3, "test")
                            for text in ("environ['OMP_NUM_THREADS']", "getppid()"))
    assert threads == ["1"] * 3 and parents == [os.getpid()] * 3
