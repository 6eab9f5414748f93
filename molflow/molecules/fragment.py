"""A piece of a molecule that others are to contain, atom for atom."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase
from scipy.spatial.transform import Rotation

from molflow.molecules.convert import Molecule, sanitise

CLOSE = 0.1
"""Å: an atom of a fragment lies where it should."""


class FragmentError(ValueError):
    """What was given is not a fragment."""


@dataclass(frozen=True)
class Fragment:
    """Heavy atoms with their bonds and places.

    Attributes:
        query: without hydrogens, aromatic where the piece by itself is.
        positions: (k, 3) Å.
    """

    query: Chem.Mol
    positions: np.ndarray

    @classmethod
    def of(cls, piece: Molecule) -> Fragment:
        """Hydrogens are left out: where the piece has one, or lacks one, the rest of a molecule may begin.

        Raises:
            FragmentError: no heavy atom, several pieces, or bonds that cannot be.
        """
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
        if len(Chem.GetMolFrags(bare)) > 1:
            raise FragmentError("the fragment is in several pieces")
        return cls(bare.GetMol(), piece.positions[heavy])

    def __len__(self) -> int:
        return len(self.positions)

    def within(self, smiles: str) -> bool:
        """Whether a molecule of this SMILES contains it, bonds included."""
        return Chem.MolFromSmiles(smiles).HasSubstructMatch(self.query)

    def place_in(self, molecule: Molecule) -> tuple[np.ndarray, float] | None:
        """The atoms (k,) of a valid molecule that lie most like the fragment, and by how many Å the farthest of them
        does not; None if the molecule does not contain it."""
        whole, _ = sanitise(molecule.to_rdkit())
        matches = whole.GetSubstructMatches(self.query, uniquify=False, maxMatches=1000) if whole is not None else ()
        found = [(np.array(match), deviation(self.positions, molecule.positions[list(match)])) for match in matches]
        return min(found, key=lambda pair: pair[1], default=None)


def deviation(one: np.ndarray, other: np.ndarray) -> float:
    """Å between the atoms (k, 3) that lie farthest apart when one is laid onto the other, without reflection."""
    if len(one) == 1:
        return 0.0
    one, other = one - one.mean(0), other - other.mean(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a line of atoms can be turned about itself
        turn, _ = Rotation.align_vectors(other, one)
    return float(np.linalg.norm(turn.apply(one) - other, axis=1).max())
