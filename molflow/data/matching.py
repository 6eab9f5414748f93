"""Bonds for coordinates that come without: those of a SMILES, laid on the neighbours that the distances show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii
from rdkit import Chem

from molflow.data.records import Unsound
from molflow.molecules.convert import Molecule

TOUCHING = 1.2
"""Atoms nearer than so many sums of covalent radii are neighbours: bonds reach to 1.15, what is none begins at 1.17
where it is crowded, and mostly beyond 1.3."""

MOST = 1000
"""Ways to lay a symmetric skeleton on itself that are tried."""


def lay_on(smiles: str, atoms: np.ndarray) -> Molecule:
    """A molecule in the order of ``atoms`` (n, 4), atomic numbers and Å, with the bonds and charges of a SMILES.

    The skeletons of heavy atoms, each with its number of hydrogens, must be the same. Of several ways to lay one on the
    other that one counts whose double and triple bonds are shortest.

    Raises:
        Unsound: the SMILES is not understood, or says otherwise than the distances.
    """
    flat = Chem.MolFromSmiles(smiles)
    if flat is None:
        raise Unsound("SMILES not understood")
    Chem.Kekulize(flat, clearAromaticFlags=True)
    numbers, positions = atoms[:, 0].astype(np.int64), atoms[:, 1:]
    heavy, hydrogens = np.flatnonzero(numbers > 1), np.flatnonzero(numbers == 1)
    apart = np.linalg.norm(positions[:, None] - positions, axis=-1)
    near = apart < TOUCHING * (covalent_radii[numbers][:, None] + covalent_radii[numbers])
    near &= ~np.eye(len(numbers), dtype=bool)
    if (near[hydrogens].sum(1) != 1).any() or not len(heavy):
        raise Unsound("a hydrogen that has not one neighbour")
    said = [(atom.GetAtomicNum(), atom.GetTotalNumHs()) for atom in flat.GetAtoms()]
    shown = [(int(numbers[atom]), int(near[atom, hydrogens].sum())) for atom in heavy]
    edges = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in flat.GetBonds()]
    pairs = np.argwhere(np.triu(near[np.ix_(heavy, heavy)]))
    if sorted(said) != sorted(shown) or len(edges) != len(pairs):
        raise Unsound("SMILES and coordinates disagree")
    matches = np.array(_skeleton(shown, pairs.tolist()).GetSubstructMatches(
        _skeleton(said, edges), uniquify=False, maxMatches=MOST), np.int64)
    if not len(matches):
        raise Unsound("SMILES and coordinates disagree")
    orders = np.array([bond.GetBondTypeAsDouble() for bond in flat.GetBonds()])
    ends = heavy[matches[:, np.array(edges, np.int64).reshape(-1, 2)]]  # (ways, bonds, 2)
    lengths = apart[ends[..., 0], ends[..., 1]]
    best = int(((orders - 1) * lengths).sum(1).argmin())

    bonds = np.zeros((len(numbers), len(numbers)), np.int64)
    first, second = ends[best].T
    bonds[first, second] = bonds[second, first] = orders.astype(np.int64)
    owner = near[hydrogens].argmax(1)
    bonds[hydrogens, owner] = bonds[owner, hydrogens] = 1
    charges = np.zeros(len(numbers), np.int64)
    charges[heavy[matches[best]]] = [atom.GetFormalCharge() for atom in flat.GetAtoms()]
    return Molecule(positions, numbers, charges, bonds)


def _skeleton(atoms: Sequence[tuple[int, int]], bonds: Sequence[Sequence[int]]) -> Chem.Mol:
    """Atoms that match only those with as many hydrogens, joined by bonds that are all the same."""
    mol = Chem.RWMol()
    for number, hydrogens in atoms:
        atom = Chem.Atom(number)
        atom.SetNoImplicit(True)
        atom.SetIsotope(hydrogens + 1)  # the one label that a match of atoms looks at
        mol.AddAtom(atom)
    for i, j in bonds:
        mol.AddBond(i, j, Chem.BondType.SINGLE)
    mol.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(mol)
    return mol.GetMol()
