from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem

from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import Molecule, collate, from_rdkit, sanitise, unbatch


def assert_same(a: Molecule, b: Molecule, atol: float = 0.0) -> None:
    np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=atol)
    for name in ("numbers", "charges", "bonds"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@st.composite
def any_molecule(draw: st.DrawFn) -> Molecule:
    """Anything a generator may decode to, chemistry aside."""
    n = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    upper = np.triu(rng.choice(4, size=(n, n), p=[0.6, 0.2, 0.1, 0.1]), 1)
    numbers = rng.choice([1, 6, 7, 8, 9, 16], size=n)
    return Molecule(rng.normal(size=(n, 3)), numbers, rng.integers(-1, 2, size=n), upper + upper.T)


def test_real_molecules_survive_rdkit(qm9: list[Molecule]) -> None:
    for molecule in qm9:
        assert_same(from_rdkit(molecule.to_rdkit()), molecule)


@given(any_molecule())
def test_broken_molecules_survive_rdkit_unrepaired(molecule: Molecule) -> None:
    assert_same(from_rdkit(molecule.to_rdkit()), molecule)


def test_smiles_are_those_of_qm9(qm9: list[Molecule]) -> None:
    for molecule in qm9:
        published = Chem.MolFromSmiles(molecule.properties["smiles"])
        assert molecule.is_valid
        assert molecule.smiles == Chem.MolToSmiles(published, isomericSmiles=False)


def test_smiles_do_not_depend_on_atom_order(qm9: list[Molecule]) -> None:
    rng = np.random.default_rng(0)
    for molecule in qm9:
        p = rng.permutation(len(molecule.numbers))
        shuffled = Molecule(
            molecule.positions[p], molecule.numbers[p], molecule.charges[p], molecule.bonds[np.ix_(p, p)]
        )
        assert shuffled.smiles == molecule.smiles


@pytest.mark.parametrize(
    ("centre", "hydrogens", "charge"),
    [("C", 4, 0), ("N", 3, 0), ("N", 4, 1), ("N", 2, -1), ("O", 2, 0), ("O", 3, 1), ("O", 1, -1), ("C", 3, 1),
     ("C", 3, -1), ("F", 1, 0), ("P", 3, 0), ("S", 2, 0), ("S", 6, 0)],
)  # fmt: skip
def test_closed_shells_are_valid(star, centre: str, hydrogens: int, charge: int) -> None:
    assert star(centre, hydrogens, charge).fault == ""


@pytest.mark.parametrize(
    ("centre", "hydrogens", "charge"),
    [("C", 5, 0), ("C", 3, 0), ("C", 2, 0), ("C", 4, 1), ("N", 4, 0), ("N", 2, 0), ("N", 2, 1), ("O", 3, 0),
     ("O", 1, 0), ("O", 2, -1), ("F", 2, 0), ("P", 4, 0), ("S", 3, 0), ("H", 2, 0), ("H", 0, 0)],
)  # fmt: skip
def test_too_many_and_too_few_bonds_are_refused(star, centre: str, hydrogens: int, charge: int) -> None:
    molecule = star(centre, hydrogens, charge)
    assert not molecule.is_valid
    assert molecule.smiles is None
    assert "valence" in molecule.fault


def test_one_hydrogen_less_makes_any_real_molecule_invalid(qm9: list[Molecule]) -> None:
    for molecule in qm9:
        keep = np.ones(len(molecule.numbers), dtype=bool)
        keep[np.flatnonzero(molecule.numbers == 1)[-1:]] = False
        if keep.all():
            continue
        broken = Molecule(
            molecule.positions[keep],
            molecule.numbers[keep],
            molecule.charges[keep],
            molecule.bonds[np.ix_(keep, keep)],
        )
        assert broken.fault.startswith("Open valence at atom")


def test_five_valent_nitrogen_is_not_rewritten_into_a_nitro_group(make) -> None:
    bonds = [(0, 1, 1), (0, 2, 2), (0, 3, 2)]
    assert not make("N F O O", bonds).is_valid
    assert make("N F O O", [*bonds[:2], (0, 3, 1)], [1, 0, 0, -1]).is_valid


def test_pieces_are_named_and_never_dropped(make) -> None:
    molecule = make("O H H F H", [(0, 1, 1), (0, 2, 1), (3, 4, 1)])
    assert molecule.fault == "2 pieces"
    assert not molecule.is_valid
    assert molecule.smiles == "F.O"


def test_a_diverged_sample_is_invalid(star) -> None:
    water = star("O", 2)
    assert replace(water, positions=np.full((3, 3), np.nan)).fault == "positions are not finite"


def test_no_atoms_is_invalid(make) -> None:
    assert make("", []).fault == "no atoms"


def test_sanitise_leaves_its_argument_alone(qm9: list[Molecule]) -> None:
    benzene_like = next(m for m in qm9 if "c" in m.smiles)
    mol = benzene_like.to_rdkit()
    sanitised, _ = sanitise(mol)
    assert any(bond.GetIsAromatic() for bond in sanitised.GetBonds())
    assert not any(bond.GetIsAromatic() for bond in mol.GetBonds())


def test_from_rdkit_kekulises_what_rdkit_made() -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles("c1ccncc1C#N"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    molecule = from_rdkit(mol)
    assert molecule.is_valid
    assert molecule.smiles == Chem.CanonSmiles("c1ccncc1C#N")
    assert np.unique(molecule.bonds).tolist() == [0, 1, 2, 3]
    assert any(bond.GetIsAromatic() for bond in mol.GetBonds())


def test_from_rdkit_says_what_is_missing(star) -> None:
    flat = Chem.AddHs(Chem.MolFromSmiles("CO"))
    with pytest.raises(ValueError, match="no 3D conformer"):
        from_rdkit(flat)
    with pytest.raises(ValueError, match="4 hydrogens are implicit"):
        from_rdkit(Chem.MolFromSmiles("CO"))
    dative = Chem.RWMol(star("O", 2).to_rdkit())
    dative.GetBondWithIdx(0).SetBondType(Chem.BondType.DATIVE)
    with pytest.raises(ValueError, match="DATIVE"):
        from_rdkit(dative)


def test_formula_and_ase(qm9: list[Molecule]) -> None:
    zwitterion = next(m for m in qm9 if m.charges.any())
    atoms = zwitterion.to_ase()
    np.testing.assert_array_equal(atoms.positions, zwitterion.positions)
    np.testing.assert_array_equal(atoms.numbers, zwitterion.numbers)
    np.testing.assert_array_equal(atoms.get_initial_charges(), zwitterion.charges)
    assert atoms.info == zwitterion.properties
    assert qm9[0].formula == "CH4"


@given(st.lists(any_molecule(), max_size=4))
def test_unbatch_undoes_collate(molecules: list[Molecule]) -> None:
    batch = collate(molecules)
    assert batch.sizes.tolist() == [len(m.numbers) for m in molecules]
    assert batch.positions.dtype == torch.float32
    for before, after in zip(molecules, unbatch(batch), strict=True):
        assert_same(before, after, atol=1e-6)


def test_unbatch_goes_by_the_mask_wherever_the_padding_lies(qm9: list[Molecule]) -> None:
    batch = collate(qm9[:2])  # methane and ammonia, so one row of padding
    mirrored = MoleculeBatch(
        batch.positions.flip(1), batch.numbers.flip(1), batch.charges.flip(1), batch.bonds.flip(1, 2)
    )
    assert [m.smiles for m in unbatch(mirrored)] == ["C", "N"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((2, 3))}, "positions must be"),
        ({"numbers": np.array([8, 1, 0])}, "atomic numbers"),
        ({"bonds": np.triu(np.ones((3, 3), dtype=int), 1)}, "symmetric"),
        ({"bonds": np.eye(3, dtype=int)}, "diagonal"),
        ({"bonds": np.full((3, 3), 4)}, "orders"),
    ],
)
def test_nonsense_arrays_are_refused(star, change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(star("O", 2), **change)
