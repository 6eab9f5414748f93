"""Facts about elements, as plain data. No chemistry library is imported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NUMBER_OF: dict[str, int] = {
    "H": 1, "B": 5, "C": 6, "N": 7, "O": 8, "F": 9, "Al": 13, "Si": 14, "P": 15, "S": 16, "Cl": 17, "As": 33, "Br": 35,
    "I": 53, "Hg": 80, "Bi": 83,
}  # fmt: skip
"""Atomic number of each symbol molflow knows: the elements of QM9, of drug-like molecules and of GEOM-Drugs."""

SYMBOL_OF: dict[int, str] = {number: symbol for symbol, number in NUMBER_OF.items()}
"""Symbol of each atomic number."""

VALENCES: dict[tuple[str, int], tuple[int, ...]] = {
    ("H", 0): (1,),
    ("B", 0): (3,), ("B", -1): (4,),
    ("C", 0): (4,), ("C", 1): (3,), ("C", -1): (3,),
    ("N", 0): (3,), ("N", 1): (4,), ("N", -1): (2,),
    ("O", 0): (2,), ("O", 1): (3,), ("O", -1): (1,),
    ("F", 0): (1,),
    ("Si", 0): (4,),
    ("P", 0): (3, 5), ("P", 1): (4,),
    ("S", 0): (2, 4, 6), ("S", 1): (3, 5), ("S", -1): (1,),
    ("Cl", 0): (1,), ("Br", 0): (1,), ("I", 0): (1,),
}  # fmt: skip
"""Sums of kekulised bond orders at which an atom of that formal charge is closed-shell, hydrogens counted.

Charge-aware on purpose: a table by element alone has to admit three-valent carbon for the sake of carbocations,
and then also calls a neutral carbon radical stable.
"""

GEOM_DRUGS_VALENCES: dict[tuple[str, int], tuple[int, ...]] = {
    ("H", 0): (1,),
    ("B", 0): (3,), ("B", -1): (4,),
    ("C", 0): (4,), ("C", 1): (3,), ("C", -1): (3,),
    ("N", 0): (3,), ("N", 1): (4,), ("N", -1): (2,), ("N", -2): (1,),
    ("O", 0): (2,), ("O", 1): (3,), ("O", -1): (1,),
    ("F", 0): (1,),
    ("Si", 0): (4,), ("Si", 1): (5,),
    ("P", 0): (3, 5), ("P", 1): (4,),
    ("S", 0): (2, 3, 6), ("S", 1): (3,), ("S", 2): (4,), ("S", 3): (2, 5), ("S", -1): (1,),
    ("Cl", 0): (1,), ("Cl", 1): (2,),
    ("Br", 0): (1,), ("Br", 1): (2,),
    ("I", 0): (1,), ("I", 1): (2,), ("I", 2): (3,),
    ("Bi", 0): (3,), ("Bi", 2): (5,),
}  # fmt: skip
"""The same as found in GEOM-Drugs, cleaned and kekulised: the corrected table that the field's evaluation uses (Nikitin
et al. 2025, arXiv 2505.00169). It has no neutral sulphur of valence 4, because GEOM writes sulphoxides with charges."""


MOST_ATOMS = 2000
"""Of one molecule: its bonds are a matrix, and a file of a few MB must not fill the memory."""


@dataclass(frozen=True)
class Vocabulary:
    """The classes a model chooses from, ascending: what its one-hot columns mean, in order.

    Args:
        elements: atomic numbers.
        charges: formal charges.
        bonds: bond orders, 0 for no bond.

    Raises:
        ValueError: other things than these.
    """

    elements: tuple[int, ...]
    charges: tuple[int, ...]
    bonds: tuple[int, ...] = (0, 1, 2, 3)

    def __post_init__(self) -> None:
        for name, low, high in (("elements", 1, 118), ("charges", -9, 9), ("bonds", 0, 3)):
            values = getattr(self, name)
            whole = values and all(type(value) is int and low <= value <= high for value in values)
            if not whole or list(values) != sorted(set(values)):
                raise ValueError(f"{name} must be whole numbers from {low} to {high}, ascending")


QM9 = Vocabulary(elements=(1, 6, 7, 8, 9), charges=(-1, 0, 1))
DRUGLIKE = Vocabulary(elements=(1, 6, 7, 8, 9, 15, 16, 17, 35, 53), charges=(-1, 0, 1))
GEOM_DRUGS = Vocabulary(elements=tuple(SYMBOL_OF), charges=(-2, -1, 0, 1, 2, 3))

VOCABULARIES: dict[str, Vocabulary] = {"qm9": QM9, "moses3d": DRUGLIKE, "geom": GEOM_DRUGS}
"""What a model of each data set can say, the fewest first."""


def vocabulary_of(data: str, elements: Iterable[int], charges: Iterable[int]) -> Vocabulary:
    """That of one of our data sets, or for another, of these elements and charges, the smallest that has them all.

    Raises:
        ValueError: there is none.
    """
    if data in VOCABULARIES:
        return VOCABULARIES[data]
    numbers, signs = set(elements), set(charges)
    for known in VOCABULARIES.values():
        if numbers <= set(known.elements) and signs <= set(known.charges):
            return known
    raise ValueError(f"no vocabulary has the elements {sorted(numbers)} and the charges {sorted(signs)}")
