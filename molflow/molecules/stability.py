"""Is every atom's valence filled? By the literature's distance rule, and by the generated bonds. Torch only.

Both rules, and connectivity, run on a whole batch at once and without RDKit, so that a training job can log them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from molflow.molecules.batch import MoleculeBatch, pair_mask
from molflow.molecules.elements import GEOM_DRUGS_VALENCES, NUMBER_OF, VALENCES

# Typical bond lengths in pm and margins, as tabulated by Hoogeboom et al. 2022 (arXiv 2203.17003, code file
# qm9/bond_analyze.py; originally wiredchemist.com). A pair that is missing has no bond of that order.
SINGLE_BOND_PM: dict[str, dict[str, int]] = {
    "H": {"H": 74, "B": 119, "C": 109, "N": 101, "O": 96, "F": 92, "Si": 148, "P": 144, "S": 134, "Cl": 127,
          "Br": 141, "I": 161},
    "B": {"Cl": 175},
    "C": {"C": 154, "N": 147, "O": 143, "F": 135, "Si": 185, "P": 184, "S": 182, "Cl": 177, "Br": 194, "I": 214},
    "N": {"N": 145, "O": 140, "F": 136, "P": 177, "S": 168, "Cl": 175, "Br": 214, "I": 222},
    "O": {"O": 148, "F": 142, "Si": 163, "P": 163, "S": 151, "Cl": 164, "Br": 172, "I": 194},
    "F": {"F": 142, "Si": 160, "P": 156, "S": 158, "Cl": 166, "Br": 178, "I": 187},
    "Si": {"Si": 233, "S": 200, "Cl": 202, "Br": 215, "I": 243},
    "P": {"P": 221, "S": 210, "Cl": 203, "Br": 222},
    "S": {"S": 204, "Cl": 207, "Br": 225, "I": 234},
    "Cl": {"Cl": 199, "Br": 214},
    "Br": {"Br": 228},
    "I": {"I": 266},
}  # fmt: skip
DOUBLE_BOND_PM: dict[str, dict[str, int]] = {
    "C": {"C": 134, "N": 129, "O": 120, "S": 160},
    "N": {"N": 125, "O": 121},
    "O": {"O": 121, "P": 150},
    "P": {"S": 186},
}
TRIPLE_BOND_PM: dict[str, dict[str, int]] = {"C": {"C": 120, "N": 116, "O": 113}, "N": {"N": 110}}
MARGINS_PM = (10, 5, 3)

# Valences the distance rule accepts, by element alone: that rule knows no formal charge. Sulphur with 4 and never 2
# is the published table's, kept so that numbers compare.
EDM_VALENCES: dict[str, tuple[int, ...]] = {
    "H": (1,), "B": (3,), "C": (4,), "N": (3,), "O": (2,), "F": (1,), "Si": (4,), "P": (3, 5), "S": (4,),
    "Cl": (1,), "Br": (1,), "I": (1,),
}  # fmt: skip

_ELEMENTS = 119  # rows of every lookup table: any atomic number, 0 for padding included
_MAX_VALENCE = 8  # sums are clamped here; no table accepts this many
_MAX_CHARGE = 4  # charges are clamped to ±4; no table accepts these


def _length_thresholds() -> Tensor:
    """(3, 119, 119) in Å: a pair closer than [k, a, b] has at least order k + 1; -inf where there is no such bond."""
    thresholds = torch.full((3, _ELEMENTS, _ELEMENTS), -math.inf)
    tables = (SINGLE_BOND_PM, DOUBLE_BOND_PM, TRIPLE_BOND_PM)
    for order, (table, margin) in enumerate(zip(tables, MARGINS_PM, strict=True)):
        for a, row in table.items():
            for b, length in row.items():
                i, j = NUMBER_OF[a], NUMBER_OF[b]
                thresholds[order, i, j] = thresholds[order, j, i] = (length + margin) / 100
    return thresholds


def _edm_allowed() -> Tensor:
    """(119, 9) bool: [atomic number, valence]."""
    allowed = torch.zeros(_ELEMENTS, _MAX_VALENCE + 1, dtype=torch.bool)
    for symbol, valences in EDM_VALENCES.items():
        allowed[NUMBER_OF[symbol], list(valences)] = True
    return allowed


def _charged_allowed(table: Mapping[tuple[str, int], Sequence[int]]) -> Tensor:
    """(119, 9, 9) bool: [atomic number, charge + 4, valence]."""
    allowed = torch.zeros(_ELEMENTS, 2 * _MAX_CHARGE + 1, _MAX_VALENCE + 1, dtype=torch.bool)
    for (symbol, charge), valences in table.items():
        allowed[NUMBER_OF[symbol], charge + _MAX_CHARGE, list(valences)] = True
    return allowed


_THRESHOLDS, _EDM_ALLOWED, _CHARGED_ALLOWED = _length_thresholds(), _edm_allowed(), _charged_allowed(VALENCES)
_GEOM_ALLOWED = _charged_allowed(GEOM_DRUGS_VALENCES)


def stable_by_distance(batch: MoleculeBatch) -> Tensor:
    """EDM's rule: bond orders are read off the distances and each atom's sum must be its element's valence.

    A pair has a single bond if it is closer than the typical single bond length + 10 pm; the bond is double if the
    pair is also closer than the double bond length + 5 pm, and then triple within the triple bond length + 3 pm.
    Generated bonds and charges are not looked at. Source: Hoogeboom et al. 2022, arXiv 2203.17003.

    Returns:
        (B, N) bool, true for stable atoms, false for padding.
    """
    numbers, positions = batch.numbers, batch.positions
    distances = (positions[:, :, None] - positions[:, None, :]).norm(dim=-1)
    thresholds = _THRESHOLDS.to(positions)[:, numbers[:, :, None], numbers[:, None, :]]
    # Thresholds fall with the order, so the number of them that a pair is under is its bond order.
    orders = (distances < thresholds).sum(dim=0)
    valences = (orders * pair_mask(batch.mask)).sum(dim=-1).clamp(max=_MAX_VALENCE)
    return _EDM_ALLOWED.to(numbers.device)[numbers, valences] & batch.mask


def stable_by_bonds(batch: MoleculeBatch) -> Tensor:
    """Each atom's generated bond orders must add up to a valence of its element *at its formal charge*.

    Returns:
        (B, N) bool, true for stable atoms, false for padding.
    """
    return _by_table(batch, _CHARGED_ALLOWED)


def stable_by_geom(batch: MoleculeBatch) -> Tensor:
    """The same by the valences that occur in GEOM-Drugs (Nikitin et al. 2025, arXiv 2505.00169)."""
    return _by_table(batch, _GEOM_ALLOWED)


def _by_table(batch: MoleculeBatch, allowed: Tensor) -> Tensor:
    valences = (batch.bonds * pair_mask(batch.mask)).sum(dim=-1).clamp(max=_MAX_VALENCE)
    charges = batch.charges.clamp(-_MAX_CHARGE, _MAX_CHARGE) + _MAX_CHARGE
    return allowed.to(batch.numbers.device)[batch.numbers, charges, valences] & batch.mask


def molecules_stable(atoms_stable: Tensor, batch: MoleculeBatch) -> Tensor:
    """(B,) bool, true where all atoms of a molecule are stable and there is at least one."""
    return (atoms_stable | ~batch.mask).all(dim=1) & batch.mask.any(dim=1)


def connected(batch: MoleculeBatch) -> Tensor:
    """(B,) bool, true where the generated bonds join all atoms, at least one, into a single piece."""
    n = batch.numbers.shape[1]
    reach = ((batch.bonds > 0) & pair_mask(batch.mask)).float() + torch.eye(n, device=batch.bonds.device)
    # Squaring doubles the path length that is covered; n - 1 steps reach any atom.
    for _ in range(math.ceil(math.log2(max(n, 2)))):
        reach = ((reach @ reach) > 0).float()
    return ((reach > 0) | ~pair_mask(batch.mask)).flatten(1).all(dim=1) & batch.mask.any(dim=1)


def is_whole(batch: MoleculeBatch) -> Tensor:
    """(B,) bool: every atom has its valence, all hang together, and the charges add up to none, as in QM9."""
    return molecules_stable(stable_by_bonds(batch), batch) & connected(batch) & (batch.charges.sum(1) == 0)
