"""The benchmarks of drug-like molecules, with an untrained generator that knows their elements."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from benchmarks import druglike_targets, druglike_unconditional, groups, scaling
from benchmarks.pool import processes
from benchmarks.record import execute
from molflow.data.prior import BINS, Prior
from molflow.data.records import Record, pack
from molflow.models import Predictor
from molflow.molecules.convert import Molecule, collate, from_rdkit
from molflow.molecules.elements import DRUGLIKE as ELEMENTS
from molflow.molecules.labels import DRUGLIKE
from molflow.nn.property import PropertyConfig, PropertyNetwork
from molflow.nn.velocity import VelocityConfig, VelocityNetwork
from molflow.nn.weights import Card, read_card, save_weights
from molflow.oracles import xtb
from molflow.search import Budget, Found, Problem
from molflow.search.problem import STEPS
from molflow.targets import TargetError

SMILES = ["CC(=O)Nc1ccc(O)cc1", "Brc1ccoc1", "CS(=O)(=O)N1CCCC1", "CS(C)=O", "Clc1ccc(F)cc1", "OCC1CC1"]


@pytest.fixture(scope="module")
def real() -> list[Molecule]:
    found = []
    for smiles in SMILES:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        assert rdDistGeom.EmbedMolecule(mol, randomSeed=1) == 0
        found.append(from_rdkit(mol))
    return found


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    size = VelocityConfig(layers=1, scalars=16, vectors=8, pairs=8, messages=8, heads=2, radial=8)
    card = Card("generator", dataclasses.asdict(size), {"part": "train", "settings": {"data": "moses3d"}},
                prior=Prior((9, 12), (1, 2), {}, {}).to_json(), vocabulary=dataclasses.asdict(ELEMENTS))
    save_weights(tmp_path / "w" / "generator.safetensors", VelocityNetwork(ELEMENTS, size), card)
    return tmp_path / "w"


def test_unconditional_beside_real_molecules(
    weights: Path, real: list[Molecule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLFLOW_DATA", str(tmp_path / "data"))
    options = {"n": 3, "seed": 1, "weights": weights, "checked": 1, "relaxed": 1}
    alone = execute("druglike-unconditional", druglike_unconditional, tmp_path / "alone", options)["results"]
    assert alone["real"] is None and "no prepared data" in alone["missing"]

    store = pack([Record.of(molecule) for molecule in real], np.zeros((6, 5)), np.arange(6), names=tuple(DRUGLIKE),
                 units=tuple(DRUGLIKE.values()), source="test", split=np.array([0, 0, 2, 2, 2, 2]))
    store.save(tmp_path / "data" / "moses3d.safetensors")
    results = execute("druglike-unconditional", druglike_unconditional, tmp_path / "beside", options)["results"]
    assert results["real"]["n"] == 3 and results["real"]["valid"] == results["real"]["connected"] == 1
    assert results["generated"]["n"] == 3 and results["nfe"] == 20
    assert results["groups"]["real"]["molecules"] == 3 and results["strain"]["real"]["molecules"] == 1
    assert results["posebusters"]["generated"]["molecules"] == 1
    page = (tmp_path / "beside" / "druglike-unconditional.md").read_text()
    assert "GEOM-Drugs' valences" in page and "(druglike-unconditional.molecules.png)" in page


def test_stability_is_by_either_table(real: list[Molecule]) -> None:
    """Of dimethyl sulphoxide, GEOM-Drugs' table says that sulphur cannot have four bonds: it writes S+ and O-."""
    examined = druglike_unconditional.Examined(real, real, None)
    found, errors = druglike_unconditional.judge(examined, None)
    assert found["molecule_stability_bonds"] == 1 and found["valid"] == 1
    assert found["molecule_stability_geom"] == pytest.approx(5 / 6)
    atoms = sum(len(molecule.numbers) for molecule in real)
    assert found["atom_stability_geom"] == pytest.approx(1 - 1 / atoms)
    assert errors["molecule_stability_geom"] > 0


@pytest.fixture
def readers(weights: Path) -> Path:
    """A guide and an evaluator beside the generator, and targets that can be drawn."""
    size = PropertyConfig(layers=1, scalars=8, density=8, vectors=4, tensors=4)
    joint = {"mw": np.ones((2, BINS), int).tolist()}
    path = weights / "generator.safetensors"
    card = dataclasses.replace(read_card(path, "generator"),
                               prior=Prior((9, 12), (1, 2), {"mw": (100.0, 200.0)}, joint).to_json())
    save_weights(path, VelocityNetwork(ELEMENTS, VelocityConfig(**card.network)), card)
    for role in ("guide", "evaluator"):
        network = PropertyNetwork(len(ELEMENTS.elements), size, ("qed", "mw"))
        save_weights(weights / f"{role}.safetensors", network,
                     Card("property", dataclasses.asdict(size), {"settings": {"data": "moses3d"}},
                          vocabulary=dataclasses.asdict(ELEMENTS), properties=("qed", "mw")))
    return weights


def test_targets_are_judged_by_what_the_networks_learnt_from(readers: Path, real: list[Molecule]) -> None:
    """Real molecules, each wanted one g/mol lighter than it is; one broken, of which nothing is calculated."""
    guide, evaluator = (Predictor.load(readers / f"{role}.safetensors", "cpu") for role in ("guide", "evaluator"))
    broken = dataclasses.replace(real[1], bonds=np.zeros_like(real[1].bonds))
    batch, n = collate([real[0], broken, *real[2:]]), len(real)
    weights = torch.tensor([druglike_targets.calculated("mw", molecule) for molecule in real])
    assert weights[0].item() == pytest.approx(151.165, abs=0.01)
    problem = Problem(("mw",), weights[:, None] - 1, weights[:, None] - 1, batch.sizes.numpy(), known=("qed", "mw"))
    found = Found(batch, torch.zeros(n, 2), torch.zeros(n, 2), torch.ones(n, dtype=torch.bool),
                  torch.full((n,), 20), torch.zeros(1, n), [])
    with processes() as pool:
        graded = druglike_targets.graded("mw", problem, found, guide, evaluator, pool)
    assert graded["calculated_of"] == n - 1 and graded["valid"] == pytest.approx((n - 1) / n)
    assert graded["calculated"] == pytest.approx(1, abs=1e-3) and graded["calculated_standard_error"] < 1e-3
    assert graded["mae_guide"] == pytest.approx((weights - 1).mean().item(), rel=1e-5)


def test_what_is_calculated_of_an_electronic_property_is_xtbs(real: list[Molecule]) -> None:
    assert druglike_targets.calculated("gap", real[5]) == xtb.properties(real[5], alpha=False).gap


def test_targets_beside_unguided(readers: Path, tmp_path: Path) -> None:
    options = {"n": 2, "seed": 1, "weights": readers, "budget": Budget(lookups=1, draws=1, generations=0, trials=1)}
    results = execute("druglike-targets", druglike_targets, tmp_path / "out", options)["results"]
    assert list(results["properties"]) == ["mw"]  # of qed no target can be drawn
    rows = results["properties"]["mw"]["rows"]
    assert rows["unguided"]["nfe"] == STEPS < rows["molflow"]["nfe"] and rows["molflow"]["n"] == 2
    assert "unguided" in (tmp_path / "out" / "druglike-targets.md").read_text()
    with pytest.raises(TargetError, match=r"'qed'.*mw"):
        execute("druglike-targets", druglike_targets, tmp_path / "other", options | {"properties": ("qed",)})


def test_groups_are_counted(real: list[Molecule]) -> None:
    scores, systems, found = groups.describe(real[0])
    assert scores["mw"] == pytest.approx(151.165, abs=0.01)
    assert systems["aromatic rings"] == systems["rings"] == 1 and systems["saturated rings"] == 0
    assert found["amide"] == found["phenol"] == 1 and found["halogen"] == 0
    assert groups.describe(real[4])[2]["halogen"] == 2


def test_scaling_fits_what_it_measures() -> None:
    fitted = scaling.fit((10, 40, 100), [10 * n + 0.5 * n**2 for n in (10, 40, 100)])
    assert fitted["linear"] == pytest.approx(10) and fitted["quadratic"] == pytest.approx(0.5)
    assert fitted["even"] == pytest.approx(20)


def test_scaling_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SIZES", (6, 12))
    monkeypatch.setattr(scaling, "PAIRS", 300)
    results = execute("scaling", scaling, tmp_path, {"n": 1})["results"]
    dense, few = (results["sizes"]["12"][name] for name in ("dense", "4 rows"))
    assert dense["molecules"] == 2 and 2 < dense["flops"] / results["sizes"]["6"]["dense"]["flops"] < 4
    assert few["flops"] > dense["flops"]  # once more for the gradient
    assert "forward and backward" in (tmp_path / "scaling.md").read_text()
