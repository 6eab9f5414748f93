"""Pieces of real molecules, found again in them and not elsewhere."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from rdkit import Chem
from scipy.spatial.transform import Rotation

from molflow.molecules.convert import Molecule
from molflow.molecules.fragment import CLOSE, Fragment, FragmentError, deviation


def rings(molecule: Molecule) -> list[list[int]]:
    mol = molecule.to_rdkit()
    Chem.FastFindRings(mol)
    return [sorted(ring) for ring in mol.GetRingInfo().AtomRings()]


def cut(molecule: Molecule, atoms: list[int]) -> Molecule:
    return Molecule(molecule.positions[atoms], molecule.numbers[atoms], molecule.charges[atoms],
                    molecule.bonds[np.ix_(atoms, atoms)])


def test_a_saturated_ring_is_found_where_it_was_cut_out_and_wherever_it_is_moved(qm9: list[Molecule]):
    turn = Rotation.from_rotvec([0.3, -1.2, 2.0])
    pieces = 0
    for molecule in qm9:
        for ring in rings(molecule):
            if (molecule.bonds[np.ix_(ring, ring)] > 1).any():
                continue  # cut out, a part of an aromatic system may be none
            piece = cut(molecule, ring)
            moved = dataclasses.replace(piece, positions=turn.apply(piece.positions) + np.array([1, 2, 3]))
            place = Fragment.of(moved).place_in(molecule)
            assert place is not None and place[1] < 1e-6 and len(Fragment.of(moved)) == len(ring)
            assert (molecule.numbers[place[0]] == piece.numbers).all()
            pieces += 1
    assert pieces > 20


def test_hydrogens_do_not_count_and_bonds_do():
    benzene = Chem.AddHs(Chem.MolFromSmiles("c1ccccc1"))
    from rdkit.Chem import AllChem

    from molflow.molecules.convert import from_rdkit

    AllChem.EmbedMolecule(benzene, randomSeed=1)
    Chem.Kekulize(benzene, clearAromaticFlags=True)
    fragment = Fragment.of(from_rdkit(benzene))
    assert len(fragment) == 6
    assert fragment.within("Cc1ccccc1") and fragment.within("c1ccc2[nH]ccc2c1")
    assert not fragment.within("C1CCCCC1") and not fragment.within("c1ccncc1") and not fragment.within("C1=CCC=CC1")


def test_a_mirror_image_is_another_shape():
    corner = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1.3, 0], [0, 0, 1.6]])
    turned = Rotation.from_rotvec([1, 2, 3]).apply(corner) + 5
    assert deviation(corner, turned) < 1e-9
    assert deviation(corner, turned * [1, 1, -1]) > 0.3
    assert deviation(corner[:1], turned[1:2]) == 0 and deviation(corner[:2], turned[:2]) < 1e-9
    bent = corner + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.4]])
    assert CLOSE < deviation(corner, bent) < 0.4


def test_a_broken_molecule_contains_nothing(qm9: list[Molecule]):
    molecule = next(m for m in qm9 if rings(m))
    fragment = Fragment.of(cut(molecule, rings(molecule)[0]))
    assert fragment.place_in(dataclasses.replace(molecule, bonds=np.zeros_like(molecule.bonds))) is None


@pytest.mark.parametrize(("numbers", "bonds", "words"), [
    ([1, 1], [[0, 1], [1, 0]], "no heavy atom"), ([6, 6], [[0, 0], [0, 0]], "several pieces"),
    ([9, 6, 6], [[0, 1, 1], [1, 0, 0], [1, 0, 0]], "bonds that cannot be")])
def test_what_is_no_fragment_is_said(numbers, bonds, words):
    count = len(numbers)
    piece = Molecule(np.arange(3.0 * count).reshape(count, 3), np.array(numbers), np.zeros(count, int), np.array(bonds))
    with pytest.raises(FragmentError, match=words) as caught:
        Fragment.of(piece)
    assert "\n" not in str(caught.value)
