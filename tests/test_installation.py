"""What `molflow info` says of versions, devices, extras and models."""

from __future__ import annotations

import json
import shutil
from importlib import metadata

import torch

import molflow as package
from molflow import installation
from molflow.nn.weights import SHIPPED


def test_info_is_the_functions_answer_in_json(molflow, tmp_path, monkeypatch):
    monkeypatch.setenv("MOLFLOW_DATA", str(tmp_path))
    done = molflow("info", "--json")
    assert done.returncode == 0 and not done.stderr
    found = json.loads(done.stdout)
    assert found == package.info()
    assert found["molflow"] == package.__version__ and found["data"] == str(tmp_path)
    assert found["packages"]["torch"] == torch.__version__
    assert found["extras"]["signals"]["cv2"] == metadata.version("opencv-python-headless")
    assert list(found["devices"]) == ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]

    card = json.loads((SHIPPED / "guide.json").read_text())
    guide = found["models"]["guide"]
    assert guide["file"] == str(SHIPPED / "guide.safetensors") and guide["kind"] == card["kind"] == "property"
    assert (guide["data"], guide["part"]) == ("qm9", "half_b")
    assert guide["seen"] == f"{card['training']['molecules_seen']:,} molecules"
    assert guide["metrics"] == {name: value for name, value in card["metrics"].items() if name != "expected"}


def test_info_is_a_readable_table(molflow, monkeypatch):
    monkeypatch.setitem(installation.EXTRAS, "oracles", ("tblite", "no_such_program"))
    done = molflow("info")
    assert done.returncode == 0 and not done.stderr
    lines = done.stdout.splitlines()
    assert any(f"molflow {package.__version__}" in line for line in lines)
    assert any("torch " in line and torch.__version__ in line for line in lines)
    [oracles] = [line for line in lines if "no_such_program" in line]
    assert f"tblite {metadata.version('tblite')}" in oracles
    [generator] = [line for line in lines if line.startswith("│ generator ")]
    assert "qm9, half_b" in generator
    assert max(map(len, lines)) <= 120


def test_damaged_models_are_told_and_do_not_stop_the_rest(molflow, tiny_weights, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    (folder / "other").mkdir(parents=True)
    for part in (tiny_weights["guide"], tiny_weights["guide"].with_suffix(".json")):
        shutil.copy(part, folder)
        shutil.copy(part, folder / "other")
    (folder / "other" / "guide.json").write_text("{")
    (folder / "lost.json").write_text("{}")
    monkeypatch.setattr(installation, "SHIPPED", folder)
    models = json.loads(molflow("info", "--json").stdout)["models"]
    assert list(models) == ["guide", "lost", "other/guide"]
    assert models["guide"]["kind"] == "property" and models["guide"]["seen"] is None
    assert "lost.safetensors is missing" in models["lost"]["fault"]
    assert "guide.json is damaged" in models["other/guide"]["fault"]
    assert "is damaged" in molflow("info").stdout


def test_version(molflow):
    done = molflow("--version")
    assert (done.returncode, done.stdout) == (0, f"molflow {package.__version__}\n")
