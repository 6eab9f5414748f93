from __future__ import annotations

import pytest
from rdkit import Chem

from molflow.molecules.druglike import scores
from molflow.molecules.elements import SYMBOL_OF, VOCABULARIES
from molflow.molecules.labels import DRUGLIKE, DRUGLIKE_RESOLUTION

# Published: QED and molar mass of aspirin (Bickerton 2012's own rules in RDKit), TPSA by Ertl's table, Crippen's log P.
ASPIRIN = {"qed": 0.550, "logp": 1.310, "tpsa": 63.60, "sa": 1.58, "mw": 180.16}


@pytest.mark.parametrize("explicit", [False, True], ids=["implicit", "all hydrogens"])
def test_scores_of_aspirin(explicit: bool) -> None:
    mol = Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O")
    found = scores(Chem.AddHs(mol) if explicit else mol)
    assert list(found) == list(DRUGLIKE) == list(DRUGLIKE_RESOLUTION)
    assert found == pytest.approx(ASPIRIN, abs=0.006)


@pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=VOCABULARIES)
def test_vocabularies_ascend_and_have_names(vocabulary) -> None:
    for values in (vocabulary.elements, vocabulary.charges, vocabulary.bonds):
        assert list(values) == sorted(set(values))
    assert all(element in SYMBOL_OF for element in vocabulary.elements)
