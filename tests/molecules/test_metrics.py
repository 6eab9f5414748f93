from __future__ import annotations

from itertools import combinations

import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem

from molflow.molecules import convert, metrics
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.similarity import diversity
from molflow.molecules.stability import molecules_stable, stable_by_distance


def test_real_molecules_score_full_marks(qm9: list[Molecule]) -> None:
    result = metrics.evaluate(qm9, training_smiles={qm9[0].smiles})
    ones = {
        metrics.ATOM_STABILITY_BONDS, metrics.MOLECULE_STABILITY_BONDS, metrics.VALID, metrics.CONNECTED,
        metrics.NEUTRAL, metrics.UNIQUE, metrics.VALID_UNIQUE,
    }  # fmt: skip
    assert {key for key, value in result.items() if value == 1.0} == ones
    assert result[metrics.N] == 61
    assert result[metrics.NOVEL] == pytest.approx(60 / 61)


def test_distance_stability_is_the_mean_over_atoms_and_over_molecules(qm9: list[Molecule]) -> None:
    result = metrics.evaluate(qm9)
    batch = collate(qm9)
    stable = stable_by_distance(batch)
    assert result[metrics.ATOM_STABILITY] == pytest.approx(stable[batch.mask].float().mean().item())
    assert result[metrics.MOLECULE_STABILITY] == molecules_stable(stable, batch).sum().item() / 61
    assert metrics.NOVEL not in result


def test_every_broken_molecule_counts(make, star) -> None:
    water, methyl = star("O", 2), star("C", 3)
    two_waters = make("O H H O H H", [(0, 1, 1), (0, 2, 1), (3, 4, 1), (3, 5, 1)])
    result = metrics.evaluate([water, water, star("N", 3), methyl, two_waters], {"O"})
    assert result[metrics.VALID] == 3 / 5
    assert result[metrics.CONNECTED] == 4 / 5
    assert result[metrics.UNIQUE] == 2 / 3
    assert result[metrics.VALID_UNIQUE] == 2 / 5
    assert result[metrics.NOVEL] == 1 / 2
    assert result[metrics.MOLECULE_STABILITY_BONDS] == 4 / 5  # stable atoms do not make it one molecule
    assert result[metrics.ATOM_STABILITY_BONDS] == 19 / 20


def test_a_net_charge_is_no_fault_but_is_counted(star) -> None:
    ammonium, broken = star("N", 4, charge=1), star("C", 3)
    result = metrics.evaluate([star("O", 2), ammonium, broken, star("B", 4, charge=-1)])
    assert result[metrics.VALID] == 3 / 4 and result[metrics.NEUTRAL] == 1 / 3


def test_diversity_is_one_less_the_mean_similarity_of_pairs(qm9: list[Molecule]) -> None:
    prints = [AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(m.smiles), 2, 2048) for m in qm9]
    pairs = [DataStructs.TanimotoSimilarity(a, b) for a, b in combinations(prints, 2)]
    assert metrics.evaluate(qm9 + qm9[:5])[metrics.DIVERSITY] == pytest.approx(1 - sum(pairs) / len(pairs))
    many = [f"{'C' * i}{'O' * j}" for i in range(1, 50) for j in range(1, 25)]
    assert 0.1 < diversity(many) < 1  # more than are compared
    assert diversity([]) == diversity(["CCO"]) == 0


def test_nothing_valid_gives_zeros_and_nothing_at_all_an_error(star) -> None:
    result = metrics.evaluate([star("C", 3)], set())
    assert result[metrics.VALID] == result[metrics.UNIQUE] == result[metrics.NOVEL] == 0
    with pytest.raises(ValueError, match="empty"):
        metrics.evaluate([])


def test_chunks_do_not_change_the_result(qm9: list[Molecule], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metrics.evaluate(qm9)
    monkeypatch.setattr(convert, "MOST_PAIRS", 7 * 20**2)
    assert metrics.evaluate(qm9) == whole
