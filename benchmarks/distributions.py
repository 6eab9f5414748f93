"""How far the molecules of one set are from those of another: what they are made of, their shapes, their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from rdkit import Chem
from rdkit.Chem import rdMolTransforms
from scipy.stats import wasserstein_distance

from molflow.molecules.convert import Molecule, sanitise

COMMON = 0.005
"""Share of the reference's bonds, or angles, from which on a kind is compared."""

_MARK = {Chem.BondType.SINGLE: "–", Chem.BondType.DOUBLE: "=", Chem.BondType.TRIPLE: "≡", Chem.BondType.AROMATIC: ":"}


@dataclass(frozen=True)
class Features:
    """What is counted and measured in a molecule, or in many.

    Attributes:
        sizes: atoms of each molecule.
        elements, bonds, rings: how many there are of each element, kind of bond (``C=O``, aromatic ``C:C``), ring size.
        lengths: Å, of each kind of bond.
        angles: degrees, of each kind of centre (``C, 4 neighbours``).
        properties: of each molecule, by name; filled by whoever has predicted them.
    """

    sizes: list[int] = field(default_factory=list)
    elements: Counter[str] = field(default_factory=Counter)
    bonds: Counter[str] = field(default_factory=Counter)
    rings: Counter[int] = field(default_factory=Counter)
    lengths: dict[str, list[float]] = field(default_factory=dict)
    angles: dict[str, list[float]] = field(default_factory=dict)
    properties: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, molecule: Molecule) -> Features:
        """Of a valid molecule. Raises ValueError for one that RDKit does not sanitise."""
        mol, fault = sanitise(molecule.to_rdkit())
        if mol is None:
            raise ValueError(f"not a molecule: {fault}")
        conformer = mol.GetConformer()
        found = cls([mol.GetNumAtoms()], Counter(atom.GetSymbol() for atom in mol.GetAtoms()),
                    rings=Counter(map(len, mol.GetRingInfo().AtomRings())))
        for bond in mol.GetBonds():
            ends = sorted((bond.GetBeginAtom(), bond.GetEndAtom()), key=_heavy_first)
            kind = _MARK[bond.GetBondType()].join(atom.GetSymbol() for atom in ends)
            found.bonds[kind] += 1
            length = rdMolTransforms.GetBondLength(conformer, *(atom.GetIdx() for atom in ends))
            found.lengths.setdefault(kind, []).append(length)
        for atom in mol.GetAtoms():
            neighbours = [other.GetIdx() for other in atom.GetNeighbors()]
            for i, j in combinations(neighbours, 2):
                angle = rdMolTransforms.GetAngleDeg(conformer, i, atom.GetIdx(), j)
                found.angles.setdefault(f"{atom.GetSymbol()}, {len(neighbours)} neighbours", []).append(angle)
        return found

    @classmethod
    def total(cls, parts: Iterable[Features]) -> Features:
        """Of all the molecules together."""
        whole = cls()
        for part in parts:
            whole.sizes.extend(part.sizes)
            for name in ("elements", "bonds", "rings"):
                getattr(whole, name).update(getattr(part, name))
            for name in ("lengths", "angles"):
                for kind, values in getattr(part, name).items():
                    getattr(whole, name).setdefault(kind, []).extend(values)
        return whole


def examine(molecule: Molecule) -> tuple[Molecule, Features | None]:
    """A molecule with its features, if it is valid. It comes back from another process with its verdict, which it
    keeps, so that nobody has to find it out again.
    """
    return molecule, Features.of(molecule) if molecule.is_valid else None


def _heavy_first(atom: Chem.Atom) -> tuple[bool, int]:
    """As chemists write bonds: C–N, N–O, O–H."""
    return atom.GetAtomicNum() == 1, atom.GetAtomicNum()


def common(values: Mapping[str, Sequence[float]]) -> list[str]:
    """The kinds that make up at least `COMMON` of all values, most frequent first."""
    total = sum(map(len, values.values()))
    return sorted((kind for kind in values if len(values[kind]) >= COMMON * total),
                  key=lambda kind: (-len(values[kind]), kind))


def total_variation(counts: Mapping[Any, int], reference: Mapping[Any, int]) -> float | None:
    """Half the sum of the differences between shares: the share that would have to change its kind. None of nothing."""
    total, total_reference = sum(counts.values()), sum(reference.values())
    if not total or not total_reference:
        return None
    kinds = counts.keys() | reference.keys()
    return sum(abs(counts.get(k, 0) / total - reference.get(k, 0) / total_reference) for k in kinds) / 2


def wasserstein(values: Sequence[float], reference: Sequence[float]) -> float | None:
    """Wasserstein-1 distance: how far values have to be moved on average, in their unit. None of nothing."""
    return float(wasserstein_distance(values, reference)) if len(values) and len(reference) else None


def distances(found: Features, reference: Features) -> dict[str, Any]:
    """From one set to another. ``sizes``: Wasserstein-1 in atoms; ``elements``, ``bonds``, ``rings``: total variation;
    ``lengths`` (Å) and ``angles`` (degrees): Wasserstein-1 of each kind that is common in the reference;
    ``properties``: of each, in its unit.
    """
    kinds = {"lengths": common(reference.lengths), "angles": common(reference.angles),
             "properties": list(reference.properties)}
    return {
        "sizes": wasserstein(found.sizes, reference.sizes),
        **{name: total_variation(getattr(found, name), getattr(reference, name))
           for name in ("elements", "bonds", "rings")},
        **{name: {kind: wasserstein(getattr(found, name).get(kind, []), getattr(reference, name)[kind])
                  for kind in chosen} for name, chosen in kinds.items()},
    }
