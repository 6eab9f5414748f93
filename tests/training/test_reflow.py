"""Straightening a flow on pairs that it has made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit.Chem import rdForceFieldHelpers

from molflow.coupling import couple
from molflow.data.store import MoleculeStore
from molflow.models import Generator
from molflow.molecules.convert import Molecule, sanitise, unbatch
from molflow.molecules.elements import QM9
from molflow.molecules.state import MoleculeSpace, decode, encode
from molflow.nn.velocity import VelocityConfig
from molflow.training.config import ConfigError, GeneratorConfig, Run
from molflow.training.reflow import ReflowTask

ROOT = Path(__file__).parents[2]
CONFIG = GeneratorConfig(run=Run(molecules=64, batch_size=8, precision="float32", compile=False),
                         network=VelocityConfig(2, 32, 8, 8, 16, 4, 8))


@pytest.fixture(scope="module")
def pairs() -> MoleculeStore:
    return couple(Generator.load(device="cpu"), 1000, 24, steps=20)


def test_couplings_are_whole_and_what_their_source_points_become(pairs: MoleculeStore) -> None:
    generator = Generator.load(device="cpu")
    molecules = pairs.batch(torch.arange(len(pairs)))
    assert 12 <= len(pairs) <= 24 and set(pairs.index.tolist()) <= set(range(1000, 1024))
    assert all(molecule.is_valid and molecule.charges.sum() == 0 for molecule in unbatch(molecules))
    space = MoleculeSpace(molecules.mask, QM9)
    with torch.no_grad():
        end = generator.flow(space)(space.numbered_noise(pairs.index), torch.arange(len(pairs)))
    again = decode(end, space.mask, QM9)
    assert torch.equal(again.numbers, molecules.numbers) and torch.equal(again.bonds, molecules.bonds)
    torch.testing.assert_close(again.positions, molecules.positions, rtol=0, atol=1e-3)


def test_settled_couplings_have_the_same_bonds_and_less_strain(pairs: MoleculeStore) -> None:
    better = couple(Generator.load(device="cpu"), 1000, 24, steps=20, settle=True)
    assert len(better) >= 12 and set(better.index.tolist()) <= set(pairs.index.tolist())
    places = [pairs.index.tolist().index(number) for number in better.index.tolist()]
    fell = []
    for was, now in zip(unbatch(pairs.batch(torch.tensor(places))), unbatch(better.batch(torch.arange(len(better)))),
                        strict=True):
        assert now.smiles == was.smiles and (now.bonds == was.bonds).all()
        moved = np.linalg.norm(now.positions - was.positions, axis=1)
        assert moved.max() < 1
        energies = [force_field_energy(molecule) for molecule in (was, now)]
        fell.append(energies[0] - energies[1])
    assert min(fell) > -0.1 and np.median(fell) > 1


def force_field_energy(molecule: Molecule) -> float:
    """By MMFF94s, kcal/mol."""
    mol, _ = sanitise(molecule.to_rdkit())
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant="MMFF94s")
    return rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties).CalcEnergy()


def test_a_shard_is_the_same_whoever_makes_it(pairs: MoleculeStore) -> None:
    few = couple(Generator.load(device="cpu"), 1010, 3, steps=20)
    places = [pairs.index.tolist().index(number) for number in few.index.tolist()]
    assert places
    assert few.sizes.tolist() == pairs.sizes[places].tolist()
    assert unbatch(few.batch(torch.arange(len(few))))[0].smiles == unbatch(pairs.batch(torch.tensor(places)))[0].smiles


def test_batches_are_the_pairs_with_nothing_permuted(pairs: MoleculeStore, store, small_split) -> None:
    task = ReflowTask(CONFIG, store, pairs)
    members = task.buckets[0]
    batch = task.batch(0)
    noise, data = task.ends(batch)
    molecules = pairs.batch(members)
    source = MoleculeSpace(molecules.mask, QM9).numbered_noise(pairs.index[members])
    for got, wanted in ((data, encode(molecules, QM9)), (noise, source)):
        assert all(torch.equal(got[key], wanted[key]) for key in wanted)
    assert not set(task.buckets.members.tolist()) & set(task.held_out.members.tolist())
    assert torch.isfinite(task.loss(task.network, batch)[0])


def test_data_are_refused_as_pairs(store: MoleculeStore, small_split) -> None:
    with pytest.raises(ConfigError, match="data set"):
        ReflowTask(CONFIG, store, store)


def test_commands_from_the_weights_to_the_straightened_weights(as_large_as_qm9: Path, tmp_path: Path) -> None:
    def molflow(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "molflow.cli", *map(str, arguments)], cwd=ROOT,
                              capture_output=True, text=True, timeout=600, env=os.environ | {
                                  "MOLFLOW_DATA": str(as_large_as_qm9), "OMP_NUM_THREADS": "1"})

    weights = ROOT / "molflow" / "weights" / "generator.safetensors"
    for first in (0, 8):
        done = molflow("data", "couple", "-n", 8, "--first", first, "--steps", 20, "--out", tmp_path / f"{first}.st")
        assert done.returncode == 0, done.stderr
    recipe = tmp_path / "short.toml"
    recipe.write_text('[run]\nmolecules = 8\nbatch_size = 4\ncompile = false\nprecision = "float32"\n')
    done = molflow("train", "reflow", "--config", recipe, "--start", weights, "--pairs", tmp_path / "0.st", "--pairs",
                   tmp_path / "8.st", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "run" / "generator.json").read_text())
    assert "source points 8 to 15" in card["training"]["pairs"] and card["training"]["molecules_seen"] == 8
    assert len(Generator.load(tmp_path / "run" / "generator.safetensors", "cpu").sample(np.array([9, 9]))) == 2
    done = molflow("train", "reflow", "--start", weights, "--pairs", as_large_as_qm9 / "qm9.safetensors", "--out",
                   tmp_path / "other")
    assert done.returncode == 2 and "molflow data couple" in done.stderr and not (tmp_path / "other").exists()
