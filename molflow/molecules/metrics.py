"""How good is a set of generated molecules? Every figure counts all molecules, the broken ones included."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from molflow.molecules.convert import Molecule, collated
from molflow.molecules.similarity import diversity
from molflow.molecules.stability import connected, molecules_stable, stable_by_bonds, stable_by_distance

N = "n"
ATOM_STABILITY = "atom_stability"
MOLECULE_STABILITY = "molecule_stability"
ATOM_STABILITY_BONDS = "atom_stability_bonds"
MOLECULE_STABILITY_BONDS = "molecule_stability_bonds"
VALID = "valid"
CONNECTED = "connected"
UNIQUE = "unique"
VALID_UNIQUE = "valid_unique"
NEUTRAL = "neutral"
NOVEL = "novel"
DIVERSITY = "diversity"


def evaluate(
    molecules: Sequence[Molecule], training_smiles: AbstractSet[str] | None = None
) -> dict[str, float]:
    """The literature's metrics, numbers from 0 to 1.

    Args:
        molecules: the generated molecules, all of them.
        training_smiles: `Molecule.smiles` of the training set.

    Returns:
        `n`: number of molecules.
        `atom_stability`, `molecule_stability`: of all atoms, of all molecules, by EDM's distance rule.
        `atom_stability_bonds`, `molecule_stability_bonds`: the same by generated bonds and formal charges.
        `valid`: of all molecules, those RDKit sanitises whole, closed-shell and in one piece (`Molecule.is_valid`).
        `connected`: of all molecules, those in one piece by their generated bonds.
        `neutral`: without a net charge, of the valid molecules (0 if none is valid).
        `unique`: distinct SMILES, of the valid molecules (0 if none is valid).
        `valid_unique`: distinct SMILES of valid molecules, of all molecules.
        `diversity`: of the distinct SMILES, see `molflow.molecules.similarity.diversity`.
        `novel`: SMILES not in `training_smiles`, of the distinct SMILES (0 if none); absent without a training set.

    Raises:
        ValueError: `molecules` is empty.
    """
    if not molecules:
        raise ValueError("cannot evaluate an empty list of molecules")
    n = len(molecules)
    smiles = [str(molecule.smiles) for molecule in molecules if molecule.is_valid]
    distinct = set(smiles)
    neutral = sum(molecule.is_valid and not molecule.charges.sum() for molecule in molecules)
    result = {
        N: float(n),
        **_graph_fractions(molecules),
        VALID: len(smiles) / n,
        NEUTRAL: neutral / max(len(smiles), 1),
        UNIQUE: len(distinct) / max(len(smiles), 1),
        VALID_UNIQUE: len(distinct) / n,
        DIVERSITY: diversity(distinct),
    }
    if training_smiles is not None:
        result[NOVEL] = len(distinct - training_smiles) / max(len(distinct), 1)
    return result


def _graph_fractions(molecules: Sequence[Molecule]) -> dict[str, float]:
    """The metrics that need no RDKit."""
    counts = dict.fromkeys(
        (ATOM_STABILITY, MOLECULE_STABILITY, ATOM_STABILITY_BONDS, MOLECULE_STABILITY_BONDS, CONNECTED), 0
    )
    for _, batch in collated(molecules):
        by_distance, by_bonds = stable_by_distance(batch), stable_by_bonds(batch)
        counts[ATOM_STABILITY] += int(by_distance.sum())
        counts[MOLECULE_STABILITY] += int(molecules_stable(by_distance, batch).sum())
        counts[ATOM_STABILITY_BONDS] += int(by_bonds.sum())
        counts[MOLECULE_STABILITY_BONDS] += int(molecules_stable(by_bonds, batch).sum())
        counts[CONNECTED] += int(connected(batch).sum())
    atoms = max(sum(len(molecule.numbers) for molecule in molecules), 1)
    per_atom = (ATOM_STABILITY, ATOM_STABILITY_BONDS)
    return {key: count / (atoms if key in per_atom else len(molecules)) for key, count in counts.items()}
