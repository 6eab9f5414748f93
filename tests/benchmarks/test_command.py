"""The command line: what it lists, refuses and writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import BENCHMARKS

ROOT = Path(__file__).parents[2]
FIELDS = {"name", "machine", "commit", "dirty", "seed", "settings", "seconds", "peak_memory_mb", "peak_gpu_memory_mb",
          "results"}
MACHINE = {"cpu", "cores", "threads", "memory_gb", "gpu", "python", "torch"}

Command = Callable[..., tuple[int, str, str]]


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True,
                          check=False)


def test_list_describes_every_benchmark_in_a_line() -> None:
    done = shell("list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(BENCHMARKS)
    assert all(len(line.split()) > 3 for line in lines)


@pytest.fixture(scope="module")
def solver(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the results of a run of `solver` with the smallest settings, in a process of its own."""
    out = tmp_path_factory.mktemp("solver")
    done = shell("run", "solver", "--out", str(out), "--n", "1", "--steps", "2", "--weights", str(weights))
    assert done.returncode == 0, done.stderr
    assert "dopri5" in done.stdout
    return out


def test_a_run_leaves_a_whole_record_and_its_tables(solver: Path, weights: Path) -> None:
    assert sorted(path.name for path in solver.iterdir()) == ["solver.json", "solver.md"]
    text = (solver / "solver.json").read_text()
    record = json.loads(text)
    assert record.keys() == FIELDS and record["machine"].keys() == MACHINE
    assert record["name"] == "solver" and record["seed"] == 0
    assert record["settings"]["n"] == 1 and record["settings"]["steps"] == [2]
    assert record["settings"]["weights"].keys() >= {"generator.safetensors"}
    assert record["seconds"] > 0 and record["peak_memory_mb"] > 50
    tables = (solver / "solver.md").read_text()
    assert "commit" in tables and "| 2 | yes |" in tables
    for path in (str(weights), str(ROOT)):
        assert path not in text + tables


def test_the_solver_figures_make_sense(solver: Path) -> None:
    results = json.loads((solver / "solver.json").read_text())["results"]
    errors = {(row["method"], row.get("grid_power"), row["nfe"]): row["error"] for row in results["accuracy"]}
    assert errors["euler", 1.0, 64] == pytest.approx(2 * errors["euler", 1.0, 128], rel=0.05)
    assert errors["rk4", 1.0, 128] < errors["midpoint", 1.0, 32] < errors["euler", 1.0, 128]
    assert min(row["error"] for row in results["accuracy"] if row["method"] == "dopri5") < 1e-7
    assert all(row["peak_mb"] > 0 and row["seconds_per_molecule"] > 0 for row in results["memory"]["rows"])
    for race in results["lbfgs"].values():
        assert race["batched"]["solved"] == race["torch_one_at_a_time"]["solved"] == 1
        assert race["throughput_ratio"] > 0


def test_a_result_is_not_overwritten_unasked(command: Command, solver: Path) -> None:
    before = (solver / "solver.json").read_bytes()
    status, _, error = command("run", "solver", "--out", str(solver))
    assert status == 2 and "--overwrite" in error and len(error.splitlines()) == 1
    assert (solver / "solver.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nonsense"], "qm9-targets"),
        (["solver", "--n", "0"], "--n"),
        (["solver", "--steps", "2,x"], "--steps"),
        (["solver", "--properties", "gap"], "--properties"),
        (["solver", "--resume"], "--resume"),
        (["solver", "--device", "abacus"], "abacus"),
        (["qm9-targets", "--resume", "--overwrite"], "--resume"),
        (["qm9-targets", "--properties", "colour"], "colour"),
        (["qm9-unconditional", "--weights", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    command: Command, tmp_path: Path, arguments: list[str], word: str
) -> None:
    status, _, error = command("run", *arguments, "--out", str(tmp_path))
    assert status == 2 and word in error and len(error.splitlines()) == 1
    assert not any(tmp_path.iterdir())
