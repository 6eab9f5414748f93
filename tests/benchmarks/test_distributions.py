"""Features of molecules against ASE and hand counts; distances against hand-computed values."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from benchmarks.distributions import Features, common, distances, examine, total_variation, wasserstein
from molflow.molecules.convert import Molecule, from_rdkit


def of_smiles(smiles: str) -> Molecule:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=1) == 0
    return from_rdkit(mol)


def test_counts_by_hand() -> None:
    furan = Features.of(of_smiles("c1ccoc1"))
    assert furan.sizes == [9] and furan.elements == {"C": 4, "O": 1, "H": 4} and furan.rings == {5: 1}
    assert furan.bonds == {"C:C": 3, "C:O": 2, "C–H": 4}
    acid = Features.of(of_smiles("NC1CC1C(=O)OC#N"))
    assert acid.bonds == {"N–H": 2, "C–N": 1, "C–C": 4, "C–H": 4, "C=O": 1, "C–O": 2, "C≡N": 1}
    assert acid.rings == {3: 1}
    # Each centre of d neighbours has d (d - 1) / 2 angles.
    assert {kind: len(values) for kind, values in acid.angles.items()} == {
        "N, 3 neighbours": 3, "C, 4 neighbours": 3 * 6, "C, 3 neighbours": 3, "O, 2 neighbours": 1,
        "C, 2 neighbours": 1}
    assert acid.lengths.keys() == acid.bonds.keys()
    assert all(len(values) == acid.bonds[kind] for kind, values in acid.lengths.items())


def test_lengths_and_angles_are_ases(qm9: list[Molecule]) -> None:
    found = Features.total(map(Features.of, qm9))
    lengths, angles = [], []
    for molecule in qm9:
        atoms = molecule.to_ase()
        lengths += [atoms.get_distance(i, j) for i, j in np.argwhere(np.triu(molecule.bonds))]
        angles += [atoms.get_angle(i, centre, j) for centre, row in enumerate(molecule.bonds)
                   for i, j in combinations(row.nonzero()[0], 2)]
    assert sorted(chain(*found.lengths.values())) == pytest.approx(sorted(lengths))
    assert sorted(chain(*found.angles.values())) == pytest.approx(sorted(angles), abs=1e-4)
    assert found.sizes == [len(molecule.numbers) for molecule in qm9]
    assert sum(found.elements.values()) == sum(found.sizes)


def test_what_is_broken_has_no_features(qm9: list[Molecule]) -> None:
    assert examine(qm9[0])[1] == Features.of(qm9[0])
    assert examine(replace(qm9[0], bonds=np.zeros_like(qm9[0].bonds)))[1] is None
    with pytest.raises(ValueError, match="not a molecule"):
        Features.of(replace(qm9[0], bonds=np.zeros_like(qm9[0].bonds)))


def test_distances_by_hand() -> None:
    assert wasserstein([0, 1], [0, 3]) == pytest.approx(1)
    assert wasserstein([0, 0, 1], [1]) == pytest.approx(2 / 3)
    assert total_variation({"a": 1, "b": 1}, {"a": 3, "c": 1}) == pytest.approx(1 / 2)
    assert total_variation({"a": 2, "b": 2}, {"a": 5, "b": 5}) == 0
    assert wasserstein([], [1]) is None and total_variation({}, {"a": 1}) is None


def test_common_kinds_come_first_and_rare_ones_not_at_all() -> None:
    assert common({"rare": [0.0], "few": [0.0] * 5, "many": [0.0] * 994}) == ["many", "few"]


def test_a_blown_up_set_is_as_far_as_it_was_blown_up(qm9: list[Molecule]) -> None:
    real = Features.total(map(Features.of, qm9))
    large = Features.total(Features.of(replace(molecule, positions=1.1 * molecule.positions)) for molecule in qm9)
    real, large = (replace(one, properties={"gap": gaps}) for one, gaps in ((real, [1.0, 2.0]), (large, [1.0, 4.0])))
    found = distances(large, real)
    assert found["sizes"] == found["elements"] == found["bonds"] == found["rings"] == 0
    assert found["lengths"] == pytest.approx({kind: 0.1 * np.mean(real.lengths[kind]) for kind in common(real.lengths)})
    assert found["angles"] == pytest.approx(dict.fromkeys(common(real.angles), 0), abs=1e-4)
    assert found["properties"] == {"gap": 1}


def test_what_one_set_lacks_has_no_distance() -> None:
    water, methane = (Features.of(of_smiles(smiles)) for smiles in ("O", "C"))
    assert distances(water, methane)["lengths"] == {"C–H": None}
