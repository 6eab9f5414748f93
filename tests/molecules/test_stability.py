from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.elements import NUMBER_OF, QM9, SYMBOL_OF, VALENCES
from molflow.molecules.stability import (
    DOUBLE_BOND_PM,
    EDM_VALENCES,
    MARGINS_PM,
    SINGLE_BOND_PM,
    TRIPLE_BOND_PM,
    connected,
    molecules_stable,
    stable_by_bonds,
    stable_by_distance,
)


def published_rule(molecule: Molecule) -> list[bool]:
    """EDM's rule one pair at a time, the way the paper's code goes about it."""

    def length(table: dict[str, dict[str, int]], a: str, b: str) -> int | None:
        return table.get(a, {}).get(b) or table.get(b, {}).get(a)

    symbols = [SYMBOL_OF[number] for number in molecule.numbers]
    valences = [0] * len(symbols)
    for i in range(len(symbols)):
        for j in range(i):
            distance = 100 * np.linalg.norm(molecule.positions[i] - molecule.positions[j])
            for table, margin in zip(
                (SINGLE_BOND_PM, DOUBLE_BOND_PM, TRIPLE_BOND_PM), MARGINS_PM, strict=True
            ):
                typical = length(table, symbols[i], symbols[j])
                if typical is None or distance >= typical + margin:
                    break
                valences[i] += 1
                valences[j] += 1
    return [valence in EDM_VALENCES[symbol] for valence, symbol in zip(valences, symbols, strict=True)]


def test_distance_rule_is_the_published_one(qm9: list[Molecule]) -> None:
    rng = np.random.default_rng(0)
    squeezed = [replace(m, positions=m.positions * rng.uniform(0.7, 1.2)) for m in qm9 for _ in range(3)]
    for molecules in (qm9, squeezed):
        expected = [flag for molecule in molecules for flag in published_rule(molecule)]
        batch = collate(molecules)
        assert stable_by_distance(batch)[batch.mask].tolist() == expected


@pytest.mark.parametrize(
    ("symbols", "angstrom", "stable"),
    [("H H", 0.835, True), ("H H", 0.845, False), ("N N", 1.125, True), ("N N", 1.135, False),
     ("O O", 1.255, True), ("O O", 1.265, False), ("F F", 1.515, True), ("F F", 1.525, False)],
)  # fmt: skip
def test_distance_rule_at_its_thresholds(make, symbols: str, angstrom: float, stable: bool) -> None:
    molecule = make(symbols, [])
    batch = collate([replace(molecule, positions=molecule.positions * angstrom)])
    assert stable_by_distance(batch).tolist() == [[stable, stable]]


def test_distance_rule_knows_no_charges_and_bond_rule_does(star) -> None:
    ammonium = star("N", 4, 1)
    tetrahedron = np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 1.02 / 3**0.5
    batch = collate([replace(ammonium, positions=tetrahedron)])
    assert stable_by_distance(batch).tolist() == [[False, True, True, True, True]]
    assert stable_by_bonds(batch).all()


def test_real_molecules_are_stable_by_bonds_and_connected(qm9: list[Molecule]) -> None:
    batch = collate(qm9)
    assert torch.equal(stable_by_bonds(batch), batch.mask)
    assert connected(batch).all()


@pytest.mark.parametrize(("symbol", "charge"), VALENCES)
def test_valence_table_is_what_rdkit_calls_closed_shell(star, symbol: str, charge: int) -> None:
    molecules = [star(symbol, hydrogens, charge) for hydrogens in range(1, 8)]
    by_table = stable_by_bonds(collate(molecules))[:, 0].tolist()
    by_rdkit = [molecule.is_valid for molecule in molecules]
    if NUMBER_OF[symbol] in QM9.elements:
        assert by_table == by_rdkit
    else:  # RDKit also allows exotic valences, such as those of iodine(III)
        assert any(by_table) and all(r for t, r in zip(by_table, by_rdkit, strict=True) if t)


def test_charges_out_of_the_table_are_unstable(star) -> None:
    batch = collate([star("C", 4, 2), star("C", 4, -3), star("C", 12)])
    assert not stable_by_bonds(batch)[:, 0].any()


def test_padding_is_never_looked_at(qm9: list[Molecule]) -> None:
    clean = collate(qm9[:8])
    n = clean.numbers.shape[1]
    pairs = clean.mask[:, :, None] & clean.mask[:, None, :]
    dirty = MoleculeBatch(
        positions=torch.where(clean.mask[..., None], clean.positions, torch.nan),
        numbers=clean.numbers,
        charges=torch.where(clean.mask, clean.charges, 1),
        bonds=torch.where(pairs & ~torch.eye(n, dtype=torch.bool), clean.bonds, 3),
    )
    for rule in (stable_by_distance, stable_by_bonds, connected):
        assert torch.equal(rule(dirty), rule(clean))


def test_no_atoms_is_neither_stable_nor_connected(make) -> None:
    batch = collate([make("", []), make("H H", [(0, 1, 1)])])
    assert molecules_stable(stable_by_bonds(batch), batch).tolist() == [False, True]
    assert connected(batch).tolist() == [False, True]


def test_diverged_positions_are_unstable(qm9: list[Molecule]) -> None:
    batch = collate(qm9[:1])
    broken = MoleculeBatch(batch.positions * torch.nan, batch.numbers, batch.charges, batch.bonds)
    assert not stable_by_distance(broken).any()


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.5))
def test_connected_agrees_with_rdkit(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    molecules = []
    for n in rng.integers(1, 20, size=6):
        upper = np.triu(rng.random((n, n)) < density, 1).astype(np.int64)
        zeros = np.zeros(n, dtype=np.int64)
        molecules.append(Molecule(np.zeros((n, 3)), zeros + 6, zeros, upper + upper.T))
    pieces = [len(Chem.GetMolFrags(molecule.to_rdkit())) for molecule in molecules]
    assert connected(collate(molecules)).tolist() == [p == 1 for p in pieces]


def test_connected_reaches_along_the_longest_chain(make) -> None:
    chain = [(i, i + 1, 1) for i in range(32)]
    batch = collate([make(" ".join(["C"] * 33), chain), make(" ".join(["C"] * 33), chain[:15] + chain[16:])])
    assert connected(batch).tolist() == [True, False]
