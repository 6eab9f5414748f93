"""Training as one starts it: the real commands, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from molflow.models import Generator
from molflow.molecules.elements import QM9
from molflow.nn.velocity import VelocityConfig, VelocityNetwork

ROOT = Path(__file__).parents[2]
RECIPE = """
[run]
molecules = 100
batch_size = 8
precision = "float32"
weights = "float16"
compile = false

[network]
layers = 2
scalars = 16
vectors = 8
pairs = 8
messages = 8
heads = 2
radial = 8
"""
# Without chemistry libraries, and with a look at what each process has learned when it comes to the writing.
SCRIPT = """
import os, sys
sys.modules["rdkit"] = sys.modules["ase"] = None  # to import either is an error from now on
import torch
from molflow import cli
from molflow.training import export as module

write = module.export

def export(task, folder, *others):
    torch.save(task.network.state_dict(), folder / f"learned-{os.environ.get('LOCAL_RANK', '0')}.pt")
    write(task, folder, *others)

module.export = export
cli.main()
"""


def python(*arguments: object, data: Path) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600,
                          env=os.environ | {"MOLFLOW_DATA": str(data), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def trained(recipe: Path, as_large_as_qm9: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave behind that train together, on a machine with neither RDKit nor ASE."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "script.py").write_text(SCRIPT)
    python(folder / "script.py", "train", "generator", "--config", recipe, "--out", folder / "out", "--devices", 2,
           "--accelerator", "cpu", data=as_large_as_qm9)
    return folder / "out"


def test_two_processes_learn_the_same(trained: Path) -> None:
    """From different batches: weights that agree to the bit have seen the mean of both gradients."""
    first, second = (torch.load(trained / f"learned-{rank}.pt", weights_only=True) for rank in (0, 1))
    torch.manual_seed(0)
    start = VelocityNetwork(QM9, VelocityConfig(2, 16, 8, 8, 8, 2, 8)).state_dict()
    assert first.keys() == second.keys() == start.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(not torch.equal(first[key], start[key]) for key in first)
    state = torch.load(trained / "state.ckpt", weights_only=True)
    assert state["step"] == 100 // (2 * 8) and state["molecules"] == 6 * 2 * 8
    assert all(torch.equal(first[key], state["network"][key]) for key in first)


def test_the_average_is_written_in_half_precision_with_its_card(trained: Path) -> None:
    written = load_file(trained / "generator.safetensors")
    average = torch.load(trained / "state.ckpt", weights_only=True)["ema"]
    assert {value.dtype for value in written.values()} == {torch.float16}
    for key, value in written.items():
        torch.testing.assert_close(value.float(), average[f"module.{key}"], rtol=2**-11, atol=1e-7)
    card = json.loads((trained / "generator.json").read_text())
    assert card["training"]["molecules_seen"] == 96 and card["training"]["settings"]["run"]["weights"] == "float16"
    network = Generator.load(trained / "generator.safetensors", "cpu").network
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_the_benchmark_says_where_the_time_goes_and_what_bounds_it(recipe, as_large_as_qm9, tmp_path: Path) -> None:
    python("-m", "benchmarks", "run", "training", "--n", 2, "--recipe", recipe, "--out", tmp_path, data=as_large_as_qm9)
    results = json.loads((tmp_path / "training.json").read_text())["results"]
    assert results["batch_size"] == 8 and results["training"]["molecules_per_second"] > 0
    assert set(results["milliseconds"]) == {"data", "forward", "backward", "optimiser"}
    floors, passes = results["floors"], results["milliseconds"]["forward"] + results["milliseconds"]["backward"]
    for key, rate in floors["molecules_per_second"].items():
        assert floors["reached"][key] == pytest.approx(1000 * 8 / passes / rate)
    assert 0 < floors["a_molecule"]["fused"] < floors["a_molecule"]["unfused"]
    assert "| forward |" in (tmp_path / "training.md").read_text()
