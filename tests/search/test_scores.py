"""A search for RDKit's scores goes by RDKit's scores."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

import molflow
from molflow.models import Predictor
from molflow.molecules.convert import Molecule, collate, from_rdkit
from molflow.molecules.druglike import scores_of
from molflow.molecules.labels import DRUGLIKE_RESOLUTION
from molflow.search import Budget, Problem
from molflow.search.scores import Scores


@pytest.fixture(scope="module")
def guide() -> Predictor:
    return Predictor.load("moses3d/guide", "cpu")


@pytest.fixture(scope="module")
def real() -> list[Molecule]:
    found = []
    for smiles in ("CC(=O)Nc1ccc(O)cc1", "CS(=O)(=O)N1CCCC1"):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        assert rdDistGeom.EmbedMolecule(mol, randomSeed=1) == 0
        found.append(from_rdkit(mol))
    return found


def problem(guide: Predictor) -> Problem:
    bounds = torch.tensor([[0.5, 5.0, 2.0]] * 3)
    return Problem(("qed", "gap", "sa"), bounds, bounds, bounds[:, 0].numpy(), known=guide.properties)


def test_scores_are_calculated_and_keep_their_gradients(guide: Predictor, real: list[Molecule]) -> None:
    broken = dataclasses.replace(real[0], bonds=0 * real[0].bonds)
    batch = collate([real[0], broken, real[1]])
    scores = Scores.of(problem(guide), guide)
    assert set(scores.columns) == {"qed", "sa"}
    readings = guide.predict(batch).requires_grad_()
    correct = scores.correct(readings, batch)
    assert torch.autograd.grad(correct.sum(), readings)[0].eq(1).all()
    for name, column in scores.columns.items():
        for row, molecule in ((0, real[0]), (2, real[1])):
            assert correct[row, column].item() == pytest.approx(scores_of(molecule.smiles)[name], rel=1e-5)
    others = [place for place in range(len(guide.properties)) if place not in scores.columns.values()]
    assert torch.equal(correct[:, others], readings[:, others]) and torch.equal(correct[1], readings[1])
    errors = scores.certain(torch.ones_like(correct))
    assert errors[:, others].eq(1).all() and errors[:, list(scores.columns.values())].eq(0).all()


def test_a_column_of_ones_own_data_is_not_rdkits(guide: Predictor) -> None:
    mine = dataclasses.replace(guide, card=dataclasses.replace(guide.card, training={"settings": {"data": "assay"}}))
    assert mine.card.data == "assay" and not Scores.of(problem(mine), mine).columns


def test_what_a_search_says_it_misses_by_is_what_rdkit_says() -> None:
    run = molflow.design({"sa": 3.0}, 2, model="moses3d", seed=3, device="cpu", atoms=30,
                         budget=Budget(draws=6, generations=1, children=2, gradients=1, trials=1))
    missed = [abs(molecule.properties["rdkit_sa"] - 3) / DRUGLIKE_RESOLUTION["sa"] for molecule in run.molecules]
    assert run.history[-1] == pytest.approx(missed, rel=1e-3, abs=1e-3)
