"""Formulas and likeness, against RDKit and real molecules."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem, rdMolDescriptors

from molflow.conditions import Conditions, has_formula, is_like, parse_formula
from molflow.molecules.convert import Molecule, collate
from molflow.targets import TargetError


def test_every_real_molecule_has_its_formula(qm9: list[Molecule]):
    for molecule in qm9:
        formula = rdMolDescriptors.CalcMolFormula(molecule.to_rdkit())
        wanted = parse_formula(formula)
        assert sum(wanted.values()) == len(molecule.numbers)
        assert [m.smiles for m in qm9 if has_formula(wanted)(m.smiles)] == [
            m.smiles for m in qm9 if rdMolDescriptors.CalcMolFormula(m.to_rdkit()) == formula]


@pytest.mark.parametrize(("text", "words"), [
    ("", "cannot read"), ("7C", "cannot read"), ("c7h8", "cannot read"), ("C7 H8", "cannot read"), ("C7H8Br", "not Br"),
    ("C2H7", "unpaired"), ("C2H8", "too many hydrogens"), ("C1H4O0", "0 times"), ("CH3", "unpaired"),
    ("C" + "1" * 5000, "cannot read"), ("CH" * 50_000 + "!", "cannot read")])
def test_what_cannot_be_a_molecule_is_said_in_one_sentence(text, words):
    with pytest.raises(TargetError, match=words) as caught:
        parse_formula(text)
    assert "\n" not in str(caught.value)


@given(st.text("CHNOF0123456789", max_size=12) | st.text(max_size=5))
def test_any_text_is_a_formula_or_an_error(text):
    try:
        found = parse_formula(text)
    except TargetError as error:
        assert "\n" not in str(error) or "\n" in text
    else:
        assert found and all(count > 0 for count in found.values())


def test_likeness_is_tanimoto_of_morgan_fingerprints_and_excludes_the_lead(qm9: list[Molecule]):
    lead, threshold = qm9[40], 0.15
    near = is_like(lead, threshold)

    def bits(molecule: Molecule):
        return AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(molecule.smiles), 2, 2048)

    alike = [DataStructs.TanimotoSimilarity(bits(lead), bits(m)) >= threshold and m.smiles != lead.smiles for m in qm9]
    assert [near(m.smiles) for m in qm9] == alike and 0 < sum(alike) < len(qm9) - 1
    assert not is_like(lead, 0.0)(lead.smiles)


def test_a_lead_that_is_no_molecule_and_a_similarity_out_of_range_are_refused(qm9: list[Molecule]):
    with pytest.raises(TargetError, match="between 0 and 1"):
        is_like(qm9[0], 1.5)
    with pytest.raises(TargetError, match="not valid"):
        is_like(dataclasses.replace(qm9[9], bonds=np.zeros_like(qm9[9].bonds)), 0.4)


def test_all_conditions_must_hold_of_batches_and_of_smiles(qm9: list[Molecule]):
    formulas = [rdMolDescriptors.CalcMolFormula(m.to_rdkit()) for m in qm9]
    lead, formula = next((m, f) for m, f in zip(qm9, formulas, strict=True) if formulas.count(f) > 1)
    broken = dataclasses.replace(qm9[3], bonds=np.zeros_like(qm9[3].bonds))
    molecules = [*qm9, broken]
    conditions = Conditions([has_formula(parse_formula(formula)), is_like(lead, 0.0)])
    will = [m.is_valid and has_formula(parse_formula(formula))(m.smiles) and m.smiles != lead.smiles
            for m in molecules]
    assert conditions(collate(molecules)).tolist() == will and any(will)
    assert [conditions.admits(m.smiles) for m in qm9] == will[:-1]
    assert torch.equal(Conditions()(collate(molecules)), torch.ones(len(molecules), dtype=torch.bool))
