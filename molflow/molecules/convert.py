"""Molecules between tensors, RDKit and ASE. Nothing is repaired on the way: what was generated is what is judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import ase
import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Geometry import Point3D

from molflow.molecules.elements import MOST_ATOMS

if TYPE_CHECKING:
    from molflow.molecules.batch import MoleculeBatch

_ORDER_TO_TYPE = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
_TYPE_TO_ORDER = {bond_type: order for order, bond_type in _ORDER_TO_TYPE.items()}

# RDKit's clean-up steps rewrite e.g. five-valent nitrogen into a charged nitro group: a repair, so left out.
_SANITISE_OPS = Chem.SANITIZE_ALL ^ Chem.SANITIZE_CLEANUP ^ Chem.SANITIZE_CLEANUP_ORGANOMETALLICS


MOST_CHARGE = 15
"""Of an atom, as in SDF files."""

MOST_PAIRS = 2**22
"""Of atoms, in what is collated at once: what is worked out of them needs a few hundred MB."""


@dataclass(frozen=True, eq=False)
class Molecule:
    """One molecule of n atoms, all hydrogens among them.

    Args:
        positions: (n, 3) float64, Å.
        numbers: (n,) int, atomic numbers, 1 to 118.
        charges: (n,) int, formal charges, -15 to 15 and none above the atomic number.
        bonds: (n, n) int, symmetric with a zero diagonal, orders 0 to 3 of one Kekulé structure.
        properties: whatever belongs to the molecule; "name" becomes the title line in a file.

    Raises:
        ValueError: a shape or value differs from the above. Positions may be infinite or NaN: a diverged sample is a
            molecule that failed, and is counted as one.
    """

    positions: NDArray[np.float64]
    numbers: NDArray[np.int64]
    charges: NDArray[np.int64]
    bonds: NDArray[np.int64]
    properties: dict[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.numbers)
        expected = {"positions": (n, 3), "numbers": (n,), "charges": (n,), "bonds": (n, n)}
        for name, shape in expected.items():
            if (got := getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must be {shape} for {n} atoms, got {got}")
        if not ((self.numbers >= 1) & (self.numbers <= 118)).all():
            raise ValueError(f"atomic numbers must be 1 to 118, got {self.numbers.tolist()}")
        if not ((self.charges >= -MOST_CHARGE) & (self.charges <= np.minimum(self.numbers, MOST_CHARGE))).all():
            raise ValueError(f"formal charges must be -{MOST_CHARGE} to {MOST_CHARGE}, none above the atomic number, "
                             f"got {self.charges.tolist()}")
        if not ((self.bonds >= 0) & (self.bonds <= 3)).all():
            raise ValueError("bond orders must be 0 to 3")
        if (self.bonds != self.bonds.T).any() or self.bonds.diagonal().any():
            raise ValueError("bonds must be symmetric with a zero diagonal")

    def to_rdkit(self) -> Chem.Mol:
        """See `to_rdkit`; the properties come along as RDKit properties."""
        mol = to_rdkit(self.positions, self.numbers, self.charges, self.bonds)
        for key, value in self.properties.items():
            mol.SetProp("_Name" if key == "name" else key, str(value))
        return mol

    def to_ase(self) -> ase.Atoms:
        """See `to_ase`; the properties come along in `Atoms.info`."""
        atoms = to_ase(self.positions, self.numbers, self.charges)
        atoms.info.update(self.properties)
        return atoms

    @cached_property
    def _verdict(self) -> tuple[str, str | None]:
        """(fault, SMILES). Only this is kept: thousands of RDKit molecules would be heavy."""
        sanitised, fault = sanitise(to_rdkit(self.positions, self.numbers, self.charges, self.bonds))
        if sanitised is None:
            return fault, None
        if (pieces := len(Chem.GetMolFrags(sanitised))) != 1:
            fault = f"{pieces} pieces"
        elif not np.isfinite(self.positions).all():
            fault = "positions are not finite"
        return fault, canonical_smiles(sanitised)

    @property
    def fault(self) -> str:
        """Why the molecule is not valid, in a few words; empty if it is."""
        return self._verdict[0]

    @property
    def is_valid(self) -> bool:
        """Passes `sanitise`, is one connected piece, and has finite positions. Never the largest fragment."""
        return not self.fault

    @property
    def smiles(self) -> str | None:
        """`canonical_smiles` of the whole molecule, all pieces of it; None if it does not pass `sanitise`."""
        return self._verdict[1]

    @property
    def formula(self) -> str:
        """Composition in Hill order, without the charge, e.g. "C2H6O"."""
        return ase.Atoms(numbers=self.numbers).get_chemical_formula()


def to_rdkit(
    positions: NDArray[np.float64],
    numbers: NDArray[np.int64],
    charges: NDArray[np.int64],
    bonds: NDArray[np.int64],
) -> Chem.Mol:
    """The molecule exactly as generated: unsanitised, no hydrogen and no radical invented.

    Args:
        positions: (n, 3), Å.
        numbers: (n,), atomic numbers.
        charges: (n,), formal charges.
        bonds: (n, n), orders 0 to 3; the upper triangle is read.

    Returns:
        An RDKit molecule with explicit hydrogens and one 3D conformer, atoms in the given order.
    """
    mol = Chem.RWMol()
    for number, charge in zip(numbers.tolist(), charges.tolist(), strict=True):
        atom = Chem.Atom(number)
        atom.SetFormalCharge(charge)
        # Without this RDKit fills open valences with implicit hydrogens, and an unfinished atom looks whole.
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    first, second = np.triu(bonds, 1).nonzero()
    for i, j, order in zip(first.tolist(), second.tolist(), bonds[first, second].tolist(), strict=True):
        mol.AddBond(i, j, _ORDER_TO_TYPE[order])
    conformer = Chem.Conformer(len(numbers))
    conformer.Set3D(True)
    for i, position in enumerate(positions.tolist()):
        conformer.SetAtomPosition(i, Point3D(*position))
    mol.AddConformer(conformer)
    return mol.GetMol()


def sanitise(mol: Chem.Mol) -> tuple[Chem.Mol | None, str]:
    """Check a molecule of `to_rdkit` by RDKit's valence model and find its aromatic rings.

    An atom with too many bonds fails RDKit's sanitisation. One with too few passes it as a radical, so no atom may
    have radical electrons left: with all hydrogens explicit that means an open valence (carbenes are refused too).

    Returns:
        (a sanitised copy, "") or (None, the reason in a few words).
    """
    if mol.GetNumAtoms() == 0:
        return None, "no atoms"
    copy = Chem.Mol(mol)
    with rdBase.BlockLogs():
        try:
            Chem.SanitizeMol(copy, sanitizeOps=_SANITISE_OPS)
        except Chem.MolSanitizeException as error:
            return None, str(error)
    for atom in copy.GetAtoms():
        if atom.GetNumRadicalElectrons():
            return None, f"Open valence at atom # {atom.GetIdx()} {atom.GetSymbol()}"
    return copy, ""


def canonical_smiles(sanitised: Chem.Mol) -> str:
    """RDKit's canonical SMILES with implicit hydrogens and without stereochemistry: what uniqueness is counted by."""
    return Chem.MolToSmiles(Chem.RemoveHs(sanitised), isomericSmiles=False)


def from_rdkit(mol: Chem.Mol) -> Molecule:
    """The inverse of `to_rdkit`, of any RDKit molecule; aromatic bonds are given RDKit's Kekulé form.

    Returns:
        The molecule, without properties.

    Raises:
        ValueError: the molecule has more than `MOST_ATOMS` atoms, implicit hydrogens (use
            `Chem.AddHs(mol, addCoords=True)`), no 3D conformer, aromatic bonds with no Kekulé form, or a bond that is
            not single, double or triple.
    """
    if mol.GetNumAtoms() > MOST_ATOMS:
        raise ValueError(f"{mol.GetNumAtoms()} atoms are more than the {MOST_ATOMS} that a molecule may have")
    mol = Chem.Mol(mol)
    mol.UpdatePropertyCache(strict=False)
    if implicit := sum(atom.GetTotalNumHs() for atom in mol.GetAtoms()):
        raise ValueError(f"{implicit} hydrogens are implicit, all must be atoms")
    if mol.GetNumConformers() == 0 or not mol.GetConformer().Is3D():
        raise ValueError("no 3D conformer")
    if any(bond.GetIsAromatic() for bond in mol.GetBonds()):
        with rdBase.BlockLogs():
            Chem.Kekulize(mol, clearAromaticFlags=True)
    n = mol.GetNumAtoms()
    bonds = np.zeros((n, n), dtype=np.int64)
    for bond in mol.GetBonds():
        if (order := _TYPE_TO_ORDER.get(bond.GetBondType())) is None:
            raise ValueError(f"bond type {bond.GetBondType()} is none of single, double, triple")
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds[i, j] = bonds[j, i] = order
    return Molecule(
        positions=mol.GetConformer().GetPositions(),
        numbers=np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64),
        charges=np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()], dtype=np.int64),
        bonds=bonds,
    )


def to_ase(
    positions: NDArray[np.float64], numbers: NDArray[np.int64], charges: NDArray[np.int64]
) -> ase.Atoms:
    """ASE atoms, formal charges as initial charges, so that calculators such as tblite see the right total charge."""
    return ase.Atoms(numbers=numbers, positions=positions, charges=charges.astype(float))


def unbatch(batch: MoleculeBatch) -> list[Molecule]:
    """The molecules of a batch on the CPU, padding removed, positions in float64."""
    tensors = batch.positions.detach().double(), batch.numbers, batch.charges, batch.bonds
    molecules = []
    for positions, numbers, charges, bonds in zip(*(tensor.cpu().numpy() for tensor in tensors), strict=True):
        atoms = numbers > 0
        molecules.append(
            Molecule(positions[atoms], numbers[atoms], charges[atoms], bonds[np.ix_(atoms, atoms)])
        )
    return molecules


def collate(molecules: Sequence[Molecule]) -> MoleculeBatch:
    """A batch of the molecules, padded to the largest, positions in torch's default dtype. Properties stay behind."""
    import torch  # only here: the processes that calculate molecule by molecule start in half the time without it

    from molflow.molecules.batch import MoleculeBatch

    shape = len(molecules), max((len(molecule.numbers) for molecule in molecules), default=0)
    positions = np.zeros((*shape, 3))
    numbers, charges = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    bonds = np.zeros((*shape, shape[1]), dtype=np.int64)
    for i, molecule in enumerate(molecules):
        n = len(molecule.numbers)
        positions[i, :n] = molecule.positions
        numbers[i, :n] = molecule.numbers
        charges[i, :n] = molecule.charges
        bonds[i, :n, :n] = molecule.bonds
    return MoleculeBatch(
        positions=torch.tensor(positions, dtype=torch.get_default_dtype()),
        numbers=torch.from_numpy(numbers),
        charges=torch.from_numpy(charges),
        bonds=torch.from_numpy(bonds),
    )


def collated(molecules: Sequence[Molecule]) -> Iterator[tuple[list[int], MoleculeBatch]]:
    """All molecules in batches of at most `MOST_PAIRS` pairs of atoms, those of like sizes together, each with their
    places: a large one must not pad thousands of small ones."""
    order = sorted(range(len(molecules)), key=lambda i: -len(molecules[i].numbers))
    while order:
        count = max(1, MOST_PAIRS // max(1, len(molecules[order[0]].numbers)) ** 2)
        places, order = sorted(order[:count]), order[count:]
        yield places, collate([molecules[i] for i in places])
