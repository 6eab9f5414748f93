"""A data set of one's own, from SDF files to designed molecules, by the commands that a user would type."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from molflow.molecules.io import read_sdf, write_sdf

SAMPLE = Path(__file__).parents[1] / "molecules" / "qm9_sample.sdf"
GENERATOR = '''data = {data!r}
[run]
part = "train"
molecules = 64
batch_size = 16
compile = false
[network]
layers = 1
scalars = 16
vectors = 8
pairs = 8
messages = 8
heads = 2
radial = 8
'''
READER = '''data = "mine"
properties = ["size", "width"]
[run]
part = {part!r}
molecules = 400
batch_size = 8
rate = 3e-3
[network]
layers = 1
scalars = 16
density = 8
vectors = 8
tensors = 4
'''


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything lies: 61 molecules in two files, with a size in Da, known of all, and a width of most."""
    monkeypatch.setenv("MOLFLOW_DATA", str(tmp_path / "data"))
    molecules, _ = read_sdf(SAMPLE)
    told = []
    for i, molecule in enumerate(molecules):
        width = float(np.abs(molecule.positions - molecule.positions.mean(0)).max())
        known = {"size [Da]": float(molecule.numbers.sum()), **({"width": width} if i % 5 else {})}
        told.append(replace(molecule, properties={"name": f"m{i}", **known}))
    (tmp_path / "files").mkdir()
    write_sdf(tmp_path / "files" / "first.sdf", told[:40])
    write_sdf(tmp_path / "files" / "second.sdf", told[40:])
    return tmp_path


def test_from_files_to_molecules(home: Path, molflow) -> None:
    done = molflow("data", "prepare", "sdf", "--source", home / "files", "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert "61 molecules" in done.stdout and "0 left out" in done.stdout and "elements: H, C, N, O, F" in done.stdout
    assert "property size [Da]: of 61 molecules" in done.stdout
    assert "property width: of 48 molecules" in done.stdout

    (home / "flow.toml").write_text(GENERATOR.format(data=str(home / "data" / "mine.safetensors")))  # or its name
    for part in ("half_a", "half_b"):
        (home / f"{part}.toml").write_text(READER.format(part=part))
    for kind, name in (("generator", "flow"), ("property", "half_a"), ("property", "half_b")):
        done = molflow("train", kind, "--config", home / f"{name}.toml", "--out", home / name, "--accelerator", "cpu")
        assert done.returncode == 0, done.stderr
    flow = json.loads((home / "flow" / "generator.json").read_text())
    assert flow["training"]["settings"]["data"] == "mine"  # no path of this machine
    assert set(flow["prior"]["ranges"]) == {"size", "width"}
    card = json.loads((home / "half_b" / "property.json").read_text())
    assert card["units"] == {"size": "Da", "width": ""} and card["properties"] == ["size", "width"]
    assert card["metrics"]["size"] < card["resolution"]["size"] / 0.03  # below the standard deviation

    weights = ("--generator", home / "flow" / "generator.safetensors", "--device", "cpu")
    done = molflow("sample", "-n", 3, "--out", home / "drawn.sdf", *weights)
    assert done.returncode == 0 and "3 molecules" in done.stdout
    done = molflow("predict", SAMPLE, "--model", home / "half_b" / "property.safetensors", "--out", home / "said.csv")
    said = pd.read_csv(home / "said.csv")
    truth = [molecule.numbers.sum() for molecule in read_sdf(SAMPLE)[0]]
    assert np.abs(said["size"] - truth).mean() < 2  # the composition says it, and is fitted

    guide, evaluator = (home / part / "property.safetensors" for part in ("half_b", "half_a"))
    readers = ("--guide", guide, "--evaluator", evaluator)
    done = molflow("design", "--target", "size=40", "--target", "width=2..3", "-n", 2, "--draws", 2, "--generations", 1,
                   "--gradients", 1, "--out", home / "designed", *weights, *readers)
    assert done.returncode == 0, done.stderr
    record = json.loads((home / "designed" / "run.json").read_text())
    assert record["units"] == {"size": "Da", "width": ""}
    table = pd.read_csv(home / "designed" / "results.csv")
    assert {"guide_size", "evaluator_width", "target_size"} <= set(table) and set(table["level"]) == {"mine"}
    assert "size 40 Da" in (home / "designed" / "report.html").read_text()

    done = molflow("design", "--target", "size=40", "-n", 1, "--draws", 2, "--generations", 0, "--gradients", 0,
                   "--out", home / "shipped", "--device", "cpu", *readers)  # whose atlas says nothing of a size
    assert done.returncode == 0 and "is of another guide: candidates were drawn" in done.stderr

    refused = molflow("design", "--target", "gap=5", "--out", home / "no", *weights, *readers)
    assert refused.returncode == 2 and refused.stderr == "molflow: unknown property 'gap': known are size, width\n"


@pytest.mark.parametrize(("words", "said"), [
    ((), "--source is missing"),
    (("--source", "nowhere"), "there is no file in .sdf"),
    (("--source", "nowhere", "--name", "qm9"), "cannot be called 'qm9'"),
    (("--source", "nowhere", "--name", "../x"), "cannot be called '../x'"),
])
def test_what_cannot_be_prepared_is_one_sentence(home: Path, molflow, words, said) -> None:
    done = molflow("data", "prepare", "sdf", *words, cwd=home)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (home / "data").exists()


def test_settings_that_do_not_fit_the_data_are_one_sentence(home: Path, molflow) -> None:
    molflow("data", "prepare", "sdf", "--source", home / "files", "--name", "mine")
    reader = READER.format(part="half_b")
    for text, said in ((reader.replace('"width"', '"weight"'), "the data have no weight, only size, width"),
                       (reader.replace("mine", "yours"), "no prepared data at"),
                       (reader.replace("batch_size = 8", "batch_size = 99"), "do not fill one batch of 99"),
                       (reader.replace('["size", "width"]', "[1]"), "properties must be names")):
        (home / "bad.toml").write_text(text)
        done = molflow("train", "property", "--config", home / "bad.toml", "--out", home / "bad")
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
