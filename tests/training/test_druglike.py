"""Other data than QM9 by the same commands: a model says what elements it knows and what it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from molflow.commands import train
from molflow.data.records import Record, pack
from molflow.data.store import MoleculeStore
from molflow.designer import design
from molflow.models import Generator, Predictor
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.elements import DRUGLIKE as ELEMENTS
from molflow.molecules.labels import DRUGLIKE, XTB
from molflow.nn.property import RESOLUTION, PropertyConfig
from molflow.nn.weights import WeightsError
from molflow.search import Budget
from molflow.targets import TargetError
from molflow.training.config import PropertyTraining, Run
from molflow.training.properties import PropertyTask, mean_errors

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

    with pytest.raises(TargetError, match="unknown property 'gap': known are qed"):
        design({"gap": 5}, **both)
    with pytest.raises(WeightsError, match="other elements"):
        design({"gap": 5}, generator=generator.path, device="cpu")


def labelled(qm9: list[Molecule], known: dict[str, np.ndarray]) -> MoleculeStore:
    """QM9's molecules with all scores, and GFN2-xTB's labels where ``known``, (61,) bool, says so of their names."""
    rng = np.random.default_rng(1)
    values = np.stack([np.where(known.get(name, True), rng.normal(size=61), np.nan) for name in (*DRUGLIKE, *XTB)], 1)
    return pack([Record.of(m) for m in qm9], values, np.arange(61), names=(*DRUGLIKE, *XTB),
                units=(*DRUGLIKE.values(), *XTB.values()), source="test", split=np.arange(61) % 3 % 2)


def task_of(store: MoleculeStore) -> PropertyTask:
    run = Run(part="train", molecules=32, batch_size=4, compile=False)
    network = PropertyConfig(layers=1, scalars=16, density=8, vectors=8, tensors=4)
    return PropertyTask(PropertyTraining(run, network, "moses3d"), store)


SOME = np.arange(61) < 40
KNOWN = {**dict.fromkeys(("homo", "lumo", "gap", "mu", "solvation"), SOME), "alpha": np.arange(61) < 20}


def test_missing_labels_count_for_nothing(qm9: list[Molecule]) -> None:
    task = task_of(labelled(qm9, KNOWN))
    names = task.properties
    assert names == (*DRUGLIKE, *XTB)
    members = torch.tensor([0, 3, 25, 30, 50, 60])
    batch = task._batch(members)
    loss, _ = task.loss(task.network, batch)
    loss.backward()
    said = task.network(batch["positions"], batch["types"], batch["mask"]).detach().numpy()
    wanted = task.store.properties[members].numpy()
    errors = [np.abs(said[rows, i] - wanted[rows, i]).mean() / RESOLUTION[name]
              for i, name in enumerate(names)
              for rows in [[0, 1] if name == "alpha" else [0, 1, 2, 3] if name in XTB else list(range(6))]]
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-5)
    gradients = {name: p.grad for name, p in task.network.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())

    # what a missing label would have been says nothing, and a batch without any has a gradient, too
    task.network.zero_grad()
    loss, _ = task.loss(task.network, task._batch(torch.tensor([41, 55])))
    loss.backward()
    assert loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in task.network.parameters())

    everything = torch.arange(61)
    figures = mean_errors(task.network.eval(), task, everything, torch.device("cpu"))
    batch = task._batch(everything)
    missed = (task.network(batch["positions"], batch["types"], batch["mask"]) - batch["targets"]).abs().detach()
    assert figures == pytest.approx(dict(zip(names, missed.nanmean(0).tolist(), strict=True)), rel=1e-4)
    unlabelled = mean_errors(task.network, task, torch.arange(40, 61), torch.device("cpu"))
    assert tuple(unlabelled) == tuple(DRUGLIKE)


def test_the_fit_on_compositions_is_that_of_the_labelled_molecules(qm9: list[Molecule]) -> None:
    store = labelled(qm9, KNOWN)
    task = task_of(store)
    members = store.parts()["train"]
    counts = np.array([[(qm9[m].numbers == element).sum() for element in ELEMENTS.elements] for m in members])
    design = np.concatenate([counts, np.ones((len(counts), 1))], 1)
    network = task.network
    for place, name in enumerate((*network.sums, *network.wholes)):
        wanted = store.columns((name,))[members, 0].double().numpy()
        known = KNOWN.get(name, np.ones(61, dtype=bool))[members]
        fit = np.linalg.lstsq(design[known], wanted[known], rcond=None)[0] if name in network.sums else None
        guess = design @ fit if fit is not None else np.full(len(members), wanted[known].mean())
        np.testing.assert_allclose(design @ network.composition[:, place].double().numpy(), guess, atol=1e-4)
        assert network.scale[place].item() == pytest.approx((wanted - guess)[known].std(ddof=1), rel=1e-4)
    with pytest.raises(ValueError, match="solvation is known of fewer than two"):
        task_of(labelled(qm9, {"solvation": np.arange(61) == 0}))


def test_labels_are_learnt_and_targets_drawn_from_those_that_are_known(qm9: list[Molecule], tmp_path: Path) -> None:
    store = labelled(qm9, KNOWN)
    store.save(tmp_path / "labelled.safetensors")
    (tmp_path / "flow.toml").write_text(FLOW)
    (tmp_path / "reader.toml").write_text(READER)
    networks = []
    for seed in (1, 2):
        (tmp_path / "reader.toml").write_text(READER.replace("compile", f"seed = {seed}\ncompile"))
        train.train_property(out=tmp_path / str(seed), config=str(tmp_path / "reader.toml"), accelerator="cpu",
                             data=[tmp_path / "labelled.safetensors"])
        networks.append(tmp_path / str(seed) / "property.safetensors")
    train.train_join(networks, tmp_path / "both.safetensors", data=tmp_path / "labelled.safetensors")
    predictor = Predictor.load(tmp_path / "both.safetensors", "cpu")
    assert tuple(predictor.network.properties) == (*DRUGLIKE, *XTB)
    assert predictor.predict(collate(qm9[:6])).isfinite().all()
    assert set(predictor.card.metrics["expected"]) == {*DRUGLIKE, *XTB}
    assert all(np.isfinite(predictor.card.metrics[name]) for name in XTB)

    train.train_generator(out=tmp_path / "flow", config=str(tmp_path / "flow.toml"), accelerator="cpu",
                          data=tmp_path / "labelled.safetensors")
    prior = Generator.load(tmp_path / "flow" / "generator.safetensors", "cpu").prior
    rows = store.parts()["train"][store.parts()["train"] < 20]
    alpha = store.columns(("alpha",))[rows]
    assert prior.ranges["alpha"] == pytest.approx((alpha.min().item(), alpha.max().item()))
    assert np.sum(prior.joint["alpha"]) == len(rows)
    drawn = prior.draw_sizes(100, np.random.default_rng(0), {"alpha": (0.0, 0.5)})
    assert set(drawn.tolist()) <= set(prior.sizes)
