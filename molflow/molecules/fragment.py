"""Pieces of a molecule that others are to contain, atom for atom."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from rdkit import Chem, rdBase
from scipy.spatial.distance import cdist

from molflow.molecules.convert import Molecule, sanitise
from molflow.molecules.rigid import deviation

CLOSE = 0.1
"""Å: an atom of a fragment lies where it should."""

APART = 2.0
"""Å: atoms of two files that come nearer do not lie in one frame. No bond between heavy atoms is as long, and pieces
drawn one by one lie on top of each other."""

MATCHES = 5000
"""Ways to find a fragment in a molecule that are looked at: two benzene rings have 144 between them."""


class FragmentError(ValueError):
    """What was given is not a fragment."""


@dataclass(frozen=True)
class Fragment:
    """Heavy atoms with their bonds and places, in one piece or several.

    Attributes:
        query: k atoms without hydrogens, aromatic where the piece by itself is.
        core: the same in the order of the query, in Kekulé form.
        bodies: (k,) number of the rigid body that each atom belongs to: places count within a body only.
        least: atoms, hydrogens counted, that a molecule with all pieces has at least.
    """

    query: Chem.Mol
    core: Molecule
    bodies: np.ndarray
    least: int

    @classmethod
    def of(cls, *pieces: Molecule) -> Fragment:
        """Hydrogens are left out: where a piece has one, or lacks one, the rest of a molecule may begin.

        Pieces that lie beside each other keep their relative places, as those of a crystal structure must; where heavy
        atoms of two are nearer than `APART`, each has a frame of its own and keeps its own shape only.

        Raises:
            FragmentError: a piece without heavy atom, or bonds that cannot be.
        """
        queries, cores = zip(*(_bare(piece) for piece in pieces), strict=True)
        query = queries[0]
        for other in queries[1:]:
            query = Chem.CombineMols(query, other)
        owner = np.repeat(np.arange(len(cores)), [len(core.numbers) for core in cores])
        bonds = np.zeros((len(owner), len(owner)), np.int64)
        for number, core in enumerate(cores):
            bonds[np.ix_(owner == number, owner == number)] = core.bonds
        positions, numbers, charges = (np.concatenate([getattr(core, name) for core in cores])
                                       for name in ("positions", "numbers", "charges"))
        one_frame = all(cdist(a.positions, b.positions).min() >= APART for a, b in combinations(cores, 2))
        joins = len(Chem.GetMolFrags(query)) - 1
        least = sum(len(piece.numbers) for piece in pieces) - 2 * joins  # two atoms meet where a hydrogen was on either
        return cls(query, Molecule(positions, numbers, charges, bonds), np.zeros_like(owner) if one_frame else owner,
                   max(least, len(owner)))

    def __len__(self) -> int:
        return len(self.bodies)

    def within(self, smiles: str) -> bool:
        """Whether a molecule of this SMILES contains it, bonds included, pieces at different atoms."""
        return Chem.MolFromSmiles(smiles).HasSubstructMatch(self.query)

    def place_in(self, molecule: Molecule) -> tuple[np.ndarray, float] | None:
        """The atoms (k,) of a valid molecule that lie most like the fragment, and by how many Å the farthest of them
        does not; None if the molecule does not contain it."""
        whole, _ = sanitise(molecule.to_rdkit())
        found = whole.GetSubstructMatches(self.query, uniquify=False, maxMatches=MATCHES) if whole is not None else ()
        if not found:
            return None
        matches = np.array(found)
        off = deviation(torch.from_numpy(self.bodies), torch.from_numpy(self.core.positions),
                        torch.from_numpy(molecule.positions[matches]))
        best = int(off.argmin())
        return matches[best], float(off[best])


def _bare(piece: Molecule) -> tuple[Chem.Mol, Molecule]:
    """The heavy atoms, as a query and as they are. Raises FragmentError."""
    heavy = np.flatnonzero(piece.numbers > 1)
    if not len(heavy):
        raise FragmentError("the fragment has no heavy atom")
    whole = Chem.RWMol(piece.to_rdkit())
    for atom in whole.GetAtoms():
        atom.SetNoImplicit(False)  # where the piece was cut out, as if hydrogens were there
    try:
        with rdBase.BlockLogs():
            Chem.SanitizeMol(whole)
    except Chem.MolSanitizeException as error:
        raise FragmentError(f"the fragment has bonds that cannot be: {error}") from None
    bare, place = Chem.RWMol(), {int(atom): number for number, atom in enumerate(heavy)}
    for number in heavy.tolist():  # hydrogens and radicals are no part of the question
        atom = whole.GetAtomWithIdx(number)
        new = Chem.Atom(atom.GetAtomicNum())
        new.SetIsAromatic(atom.GetIsAromatic())
        new.SetFormalCharge(atom.GetFormalCharge())
        bare.AddAtom(new)
    for bond in whole.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if all(end in place for end in ends):
            bare.AddBond(place[ends[0]], place[ends[1]], bond.GetBondType())
    return bare.GetMol(), Molecule(piece.positions[heavy], piece.numbers[heavy], piece.charges[heavy],
                                   piece.bonds[np.ix_(heavy, heavy)])
