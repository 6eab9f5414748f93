"""Other data than QM9 by the same commands: a model says what elements it knows and what it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from molflow.commands import train
from molflow.data.records import Record, pack
from molflow.designer import design
from molflow.models import Generator, Predictor
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.elements import DRUGLIKE as ELEMENTS
from molflow.molecules.labels import DRUGLIKE
from molflow.nn.weights import WeightsError
from molflow.search import Budget
from molflow.targets import TargetError

RUN = """
data = "moses3d"
[run]
part = "train"
molecules = 32
batch_size = 4
batches = "pairs"
compile = false
[network]
layers = 1
scalars = 16
"""
FLOW = RUN + "vectors = 8\npairs = 8\nmessages = 8\nheads = 2\nradial = 8\n"
READER = RUN.replace('batches = "pairs"\n', "") + "density = 8\nvectors = 8\ntensors = 4\n"


@pytest.fixture
def data(qm9: list[Molecule], tmp_path: Path) -> Path:
    """QM9's molecules under another name: their composition is what there is to learn."""
    values = np.array([[0.5, len(m.numbers) / 10, (m.numbers > 6).sum(), 2.0, m.numbers.sum()] for m in qm9])
    store = pack([Record.of(m) for m in qm9], values, np.arange(61), names=tuple(DRUGLIKE),
                 units=tuple(DRUGLIKE.values()), source="test", split=np.arange(61) % 3 % 2)
    store.save(tmp_path / "moses3d.safetensors")
    return tmp_path


def test_models_of_another_data_set(data: Path, qm9: list[Molecule], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLFLOW_DATA", str(data))
    (data / "flow.toml").write_text(FLOW)
    (data / "reader.toml").write_text(READER)
    train.train_generator(out=data / "flow", config=str(data / "flow.toml"), accelerator="cpu")
    generator = Generator.load(data / "flow" / "generator.safetensors", "cpu")
    assert generator.vocabulary == ELEMENTS
    assert tuple(DRUGLIKE) == tuple(generator.prior.ranges)
    made = generator.sample(np.array([5, 9]), steps=2)
    assert set(made.numbers[made.mask].tolist()) <= set(ELEMENTS.elements)

    train.train_property(out=data / "reader", config=str(data / "reader.toml"), accelerator="cpu")
    predictor = Predictor.load(data / "reader" / "property.safetensors", "cpu")
    said = predictor.predict(collate(qm9[:6]))
    # what the composition says is known before anything is learnt
    mass = torch.tensor([m.numbers.sum() for m in qm9[:6]]).float()
    torch.testing.assert_close(said[:, list(DRUGLIKE).index("mw")], mass, rtol=0.01, atol=0.1)

    both = {"generator": generator.path, "guide": predictor.path, "evaluator": predictor.path, "device": "cpu"}
    run = design({"qed": "max", "mw": "40..200Da"}, 3, model="moses3d", **both,
                 budget=Budget(draws=2, generations=1, gradients=1, trials=1, steps=2))
    for molecule in run.molecules:
        assert {f"guide_{name}" for name in DRUGLIKE} <= set(molecule.properties)
        assert "guide_gap" not in molecule.properties
        assert ("rdkit_qed" in molecule.properties) == molecule.is_valid
    row = run.save(data / "run") / "results.csv"
    assert {"guide_tpsa", "evaluator_logp", "target_mw", "level"} <= set(pd.read_csv(row).columns)

    with pytest.raises(TargetError, match="does not know gap: it knows qed"):
        design({"gap": 5}, **both)
    with pytest.raises(WeightsError, match="other elements"):
        design({"gap": 5}, generator=generator.path, device="cpu")
