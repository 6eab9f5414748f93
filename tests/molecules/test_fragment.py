"""Pieces of real molecules, found again in them and not elsewhere."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from rdkit import Chem
from scipy.spatial.transform import Rotation

from molflow.molecules.convert import Molecule
from molflow.molecules.fragment import Fragment, FragmentError


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


def test_a_broken_molecule_contains_nothing(qm9: list[Molecule]):
    molecule = next(m for m in qm9 if rings(m))
    fragment = Fragment.of(cut(molecule, rings(molecule)[0]))
    assert fragment.place_in(dataclasses.replace(molecule, bonds=np.zeros_like(molecule.bonds))) is None


def far_bonds(molecule: Molecule) -> tuple[list[int], list[int]] | None:
    """The two bonds between heavy atoms that lie farthest apart, if they are at least 2 Å apart and nothing is
    aromatic."""
    heavy, x = molecule.numbers > 1, molecule.positions
    if any(letter.islower() for letter in str(molecule.smiles)):
        return None
    bonds = np.argwhere(np.triu(molecule.bonds == 1) & heavy[:, None] & heavy).tolist()
    apart = {(i, j): min(np.linalg.norm(x[a] - x[b]) for a in bonds[i] for b in bonds[j])
             for i in range(len(bonds)) for j in range(i)}
    i, j = max(apart, key=lambda pair: apart[pair], default=(0, 0))
    return (bonds[i], bonds[j]) if i != j and apart[i, j] >= 2.0 else None


def test_pieces_beside_each_other_keep_their_places_and_pieces_that_overlap_only_their_shapes(qm9: list[Molecule]):
    turn = Rotation.from_rotvec([0.3, -1.2, 2.0])
    seen = 0
    for molecule in qm9:
        if (bonds := far_bonds(molecule)) is None:
            continue
        first, second = (cut(molecule, bond) for bond in bonds)
        beside = Fragment.of(*(dataclasses.replace(piece, positions=turn.apply(piece.positions) + 3.0)
                               for piece in (first, second)))
        place = beside.place_in(molecule)
        assert set(beside.bodies) == {0} and place is not None and place[1] < 1e-6 and len(set(place[0])) == 4
        away = second.positions.mean(0) - first.positions.mean(0)
        shifted = Fragment.of(first, dataclasses.replace(second, positions=second.positions + 3 * away))
        place = shifted.place_in(molecule)
        assert place is not None and place[1] > 1.0
        onto = Fragment.of(first, dataclasses.replace(second, positions=second.positions - away))
        place = onto.place_in(molecule)
        assert onto.bodies.tolist() == [0, 0, 1, 1] and place is not None and place[1] < 1e-6
        assert (molecule.numbers[place[0]] == onto.core.numbers).all()
        seen += 1
    assert seen > 20


def test_two_pieces_need_two_places():
    bond = Molecule(np.array([[0.0, 0, 0], [1.4, 0, 0]]), np.array([6, 9]), np.zeros(2, int), 1 - np.eye(2, dtype=int))
    twice = Fragment.of(bond, bond)
    assert twice.within("FCCF") and not twice.within("FCF") and not twice.within("FCC")
    assert Fragment.of(bond).within("FCC") and len(twice) == twice.least == 4


@pytest.mark.parametrize(("numbers", "bonds", "words"), [
    ([1, 1], [[0, 1], [1, 0]], "no heavy atom"),
    ([9, 6, 6], [[0, 1, 1], [1, 0, 0], [1, 0, 0]], "bonds that cannot be")])
def test_what_is_no_fragment_is_said(numbers, bonds, words):
    count = len(numbers)
    piece = Molecule(np.arange(3.0 * count).reshape(count, 3), np.array(numbers), np.zeros(count, int), np.array(bonds))
    with pytest.raises(FragmentError, match=words) as caught:
        Fragment.of(piece)
    assert "\n" not in str(caught.value)
