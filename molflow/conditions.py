"""What a molecule must be, whatever its properties: its formula, its likeness to another one, a piece of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

import torch
from rdkit import Chem, DataStructs
from torch import Tensor

from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import Molecule, unbatch
from molflow.molecules.elements import QM9, SYMBOL_OF
from molflow.molecules.fragment import CLOSE, Fragment
from molflow.molecules.similarity import fingerprint
from molflow.targets import TargetError

Condition = Callable[[str], bool]
"""Says of a SMILES whether it will do."""

VALENCE = {"H": 1, "B": 3, "C": 4, "N": 3, "O": 2, "F": 1, "Al": 3, "Si": 4, "P": 5, "S": 6, "Cl": 1, "As": 5, "Br": 1,
           "I": 1, "Hg": 2, "Bi": 5}
"""The highest of each element, for counting; its others differ by an even number."""


def parse_formula(text: str, elements: Sequence[int] = QM9.elements) -> dict[str, int]:
    """``C7H10O2`` -> ``{"C": 7, "H": 10, "O": 2}``, of the atomic numbers that a model knows.

    Raises:
        TargetError: not a formula, with elements that the model does not know, or of which no closed-shell molecule can
            be made.
    """
    text = text.strip()
    found: dict[str, int] = {}
    known = [SYMBOL_OF[number] for number in elements]
    if not re.fullmatch(r"(?:[A-Z][a-z]?\d{0,9})+", text):
        raise TargetError(f"cannot read {text!r} as a formula: write it as C7H10O2")
    for element, count in re.findall(r"([A-Z][a-z]?)(\d*)", text):
        if element not in known:
            raise TargetError(f"formula {text}: the model knows {', '.join(known)}, not {element}")
        found[element] = found.get(element, 0) + int(count or 1)
    if not all(found.values()):
        raise TargetError(f"formula {text}: leave out elements that occur 0 times")
    valences = sum(VALENCE[element] * count for element, count in found.items())
    if valences % 2:
        raise TargetError(f"formula {text} has an odd number of valences, so that one electron would stay unpaired: "
                          "add or remove a hydrogen")
    if sum(found.values()) > 1 and valences < 2 * (sum(found.values()) - 1):
        raise TargetError(f"formula {text} has too many hydrogens: {sum(found.values())} atoms cannot hang together")
    return found


def has_formula(wanted: dict[str, int]) -> Condition:
    """Whether hydrogens included the atoms are these."""

    def holds(smiles: str) -> bool:
        counts: dict[str, int] = {}
        for atom in Chem.AddHs(Chem.MolFromSmiles(smiles)).GetAtoms():
            counts[atom.GetSymbol()] = counts.get(atom.GetSymbol(), 0) + 1
        return counts == wanted

    return holds


def is_like(lead: Molecule, similarity: float) -> Condition:
    """Whether Tanimoto's coefficient (`molflow.molecules.similarity`) with the lead is at least ``similarity``, and it
    is not the lead itself.

    Raises:
        TargetError: the lead is not a valid molecule, or ``similarity`` is not between 0 and 1.
    """
    if not 0 <= similarity <= 1:
        raise TargetError(f"the similarity must be between 0 and 1, got {similarity:g}")
    if lead.smiles is None:
        raise TargetError(f"the molecule to start from is not valid: {lead.fault}")
    itself, bits = lead.smiles, fingerprint(lead.smiles)

    def holds(smiles: str) -> bool:
        if smiles == itself:
            return False
        return DataStructs.TanimotoSimilarity(bits, fingerprint(smiles)) >= similarity

    return holds


class Conditions:
    """Several conditions as a search asks for them: of SMILES, and of batches of molecules.

    Args:
        conditions: all of them must hold.
        fragment: to be contained, bonds and places.
    """

    def __init__(self, conditions: Sequence[Condition] = (), fragment: Fragment | None = None) -> None:
        self.all = (*conditions, *([fragment.within] if fragment else []))
        self.fragment = fragment
        self.admits = cache(lambda smiles: all(holds(smiles) for holds in self.all))

    def __call__(self, batch: MoleculeBatch) -> Tensor:
        """Which of B decoded molecules will do, (B,) bool; of a fragment, no atom farther than `CLOSE` from its
        place."""
        if not self.all:
            return torch.ones(len(batch), dtype=torch.bool, device=batch.numbers.device)
        return torch.tensor([self._holds(molecule) for molecule in unbatch(batch.to("cpu"))],
                            device=batch.numbers.device)

    def _holds(self, molecule: Molecule) -> bool:
        if molecule.smiles is None or not self.admits(molecule.smiles):
            return False
        place = self.fragment.place_in(molecule) if self.fragment else None
        return self.fragment is None or (place is not None and place[1] <= CLOSE)
