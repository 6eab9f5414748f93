"""The real command as a user would meet it: what it writes, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from rdkit import Chem

from molflow import likelihood
from molflow.molecules.io import write_sdf

REAL = Path(__file__).parent / "molecules" / "qm9_sample.sdf"


def models(weights: dict[str, Path]) -> list[object]:
    return [part for name, path in weights.items() for part in (f"--{name}", path)]


def refused(result: subprocess.CompletedProcess[str], *words: str, status: int = 2) -> None:
    """One clear sentence on stderr, no traceback, the right exit status."""
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_design_writes_everything_and_can_be_repeated(molflow, tiny_weights, tmp_path):
    def command(out):
        return molflow("design", "--target", "gap=5.0eV", "--target", "mu=1", "-n", 2, "--seed", 3, "--draws", 2,
                       "--generations", 1, "--gradients", 1, "--device", "cpu", "--out", out, *models(tiny_weights))

    first = command(tmp_path / "a")
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "a"
    assert {p.name for p in folder.iterdir()} == {"molecules.sdf", "trajectory.xyz", "results.csv", "run.json",
                                                  "molecules.png", "optimisation.png", "report.html"}
    table = pd.read_csv(folder / "results.csv")
    assert len(table) == 2 and list(table["target_gap"]) == [5.0, 5.0]
    records = list(Chem.SDMolSupplier(str(folder / "molecules.sdf"), sanitize=False, removeHs=False))
    assert len(records) == 2
    for record, gap in zip(records, table["evaluator_gap"], strict=True):
        assert float(record.GetProp("evaluator_gap")) == pytest.approx(gap, rel=1e-4)
    assert json.loads((folder / "run.json").read_text())["settings"]["seed"] == 3
    assert "gap" in first.stdout

    assert command(tmp_path / "b").returncode == 0
    assert (tmp_path / "b" / "molecules.sdf").read_text() == (folder / "molecules.sdf").read_text()

    refused(command(folder), "overwrite")


@pytest.mark.parametrize(("arguments", "words"), [
    (["--target", "colour=1"], ["colour", "alpha"]),
    (["--target", "gap=5.0D"], ["unit", "eV"]),
    (["--target", "gap"], ["property=value"]),
    (["--target", "gap=5", "-n", "0"], ["at least 1"]),
    (["--target", "gap=5", "--atoms", "99"], ["5 to 9", "99"]),
    (["--target", "gap=5", "--draws", "0"], ["--draws"]),
    (["--target", "gap=5..4"], ["smaller bound first"]),
    (["--target", "gap=9", "--target", "homo=-6", "--target", "lumo=0"], ["contradicts"]),
    (["--target", "gap=5", "--formula", "C2H7"], ["unpaired"]),
    (["--target", "gap=5", "--fragment", "none.sdf"], ["none.sdf"]),
    (["--fragment", REAL, "none.sdf", "--target", "gap=5"], ["none.sdf"]),
    (["--target", "gap=5", "core.sdf"], ["core.sdf", "--fragment"]),
    (["--target", "gap=5", "--device", "tpu"], ["tpu"]),
])
def test_bad_input_to_design(molflow, tiny_weights, tmp_path, arguments, words):
    out = tmp_path / "out"
    refused(molflow("design", *arguments, "--out", out, *models(tiny_weights)), *words)
    assert not out.exists()


@pytest.mark.parametrize("between", [[], ["--fragment"]])
def test_several_files_of_pieces_are_all_read(molflow, tiny_weights, tmp_path, qm9, between):
    piece = max(qm9, key=lambda molecule: (molecule.numbers > 1).sum())
    files = [tmp_path / name for name in ("a.sdf", "b.sdf")]
    for file in files:
        write_sdf(file, [piece])
    refused(molflow("design", "--fragment", files[0], *between, files[1], "--target", "gap=5", "--out", tmp_path / "o",
                    *models(tiny_weights)), "18 heavy atoms", "9 atoms")


def test_a_target_outside_what_was_seen_warns_and_goes_on(molflow, tiny_weights, tmp_path):
    result = molflow("design", "--target", "gap=40", "-n", 1, "--draws", 1, "--generations", 0, "--gradients", 0,
                     "--out", tmp_path / "o",
                     *models(tiny_weights))
    assert result.returncode == 0
    assert "warning" in result.stderr and "outside" in result.stderr


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_damaged_weights(molflow, tiny_weights, tmp_path, content):
    bad = tmp_path / "generator.safetensors"
    whole = tiny_weights["generator"].read_bytes()
    bad.write_bytes(whole[: len(whole) // 2] if content is None else content)
    bad.with_suffix(".json").write_bytes(tiny_weights["generator"].with_suffix(".json").read_bytes())
    refused(molflow("sample", "-n", 1, "--out", tmp_path / "x.sdf", "--generator", bad), "generator.safetensors")
    refused(molflow("sample", "-n", 1, "--out", tmp_path / "x.sdf", "--generator", tmp_path / "none.safetensors"),
            "none.safetensors")
    refused(molflow("sample", "-n", 1, "--out", tmp_path / "x.sdf", "--generator", tiny_weights["guide"]), "property")
    assert not (tmp_path / "x.sdf").exists()


@pytest.mark.parametrize("vocabulary", [3, "CNO", [1, 6], {"elements": 6}, {"elements": [1, 6]}, {"metals": [3]}])
def test_damaged_cards(molflow, tiny_weights, tmp_path, vocabulary):
    for name, command in (("generator", ["sample", "--out", tmp_path / "x.sdf", "--generator"]),
                          ("guide", ["predict", REAL, "--model"])):
        bad = tmp_path / f"{name}.safetensors"
        bad.write_bytes(tiny_weights[name].read_bytes())
        card = json.loads(tiny_weights[name].with_suffix(".json").read_text())
        bad.with_suffix(".json").write_text(json.dumps(card | {"vocabulary": vocabulary}))
        refused(molflow(*command, bad), f"{name}.json is damaged")


def test_sample_predict_evaluate(molflow, tiny_weights, tmp_path):
    out = tmp_path / "s.sdf"
    assert molflow("sample", "-n", 3, "--atoms", 5, "--out", out, "--generator", tiny_weights["generator"]
                   ).returncode == 0
    refused(molflow("sample", "-n", 3, "--out", out, "--generator", tiny_weights["generator"]), "overwrite")

    predicted = molflow("predict", REAL, "--model", tiny_weights["guide"])
    assert predicted.returncode == 0, predicted.stderr
    assert len(predicted.stdout.splitlines()) == 62

    judged = molflow("evaluate", REAL, "--json")
    assert judged.returncode == 0, judged.stderr
    figures = json.loads(judged.stdout)
    assert figures["n"] == 61 and figures["valid"] == 1.0


def test_likelihood_writes_what_the_function_returns(molflow, tiny_weights, qm9, tmp_path):
    file, table = tmp_path / "few.sdf", tmp_path / "table.csv"
    write_sdf(file, qm9[:3])
    options = ["--steps", 2, "--draws", 3, "--seed", 5, "--generator", tiny_weights["generator"]]
    done = molflow("likelihood", file, "--out", table, *options)
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(table)
    wanted = likelihood(file, steps=2, draws=3, seed=5, generator=tiny_weights["generator"])
    assert list(written) == list(wanted) == ["name", "smiles", "n_atoms", "log_p", "log_p_error", "note"]
    assert written["log_p"].to_list() == pytest.approx(wanted["log_p"].to_list(), rel=1e-4)
    assert written["n_atoms"].to_list() == [len(m.numbers) for m in qm9[:3]]
    assert (written["log_p_error"] > 0).all()

    refused(molflow("likelihood", file, "--out", table, *options), "overwrite")
    printed = molflow("likelihood", file, *options)
    assert printed.returncode == 0 and len(printed.stdout.splitlines()) == 4


def test_molecules_beyond_the_flow_get_a_note_and_no_number(molflow, tiny_weights, qm9, tmp_path):
    odd = REAL.read_text().split("$$$$\n")[0].replace(" C   0", " Si  0")  # silane out of methane
    write_sdf(tmp_path / "real.sdf", qm9[1:2])
    both = tmp_path / "both.sdf"
    both.write_text(odd + "$$$$\n" + (tmp_path / "real.sdf").read_text())
    done = molflow("likelihood", both, "--steps", 1, "--draws", 1, "--generator", tiny_weights["generator"], "--out",
                   tmp_path / "t.csv")
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(tmp_path / "t.csv")
    assert written["log_p"].isna().tolist() == [True, False] and written["log_p_error"].isna().all()
    assert "14" in written["note"][0]


@pytest.mark.parametrize(("arguments", "words"), [
    (["missing.sdf"], ["missing.sdf"]),
    (["no.sdf"], ["no.sdf", "SDF"]),
    ([REAL, "--steps", 0], ["steps"]),
    ([REAL, "--draws", 0], ["draws"]),
    ([REAL, "--generator", "none.safetensors"], ["none.safetensors"]),
])
def test_bad_input_to_likelihood(molflow, tmp_path, arguments, words):
    (tmp_path / "no.sdf").write_text("this is not a molecule file\n")
    refused(molflow("likelihood", *arguments, "--out", tmp_path / "t.csv", cwd=tmp_path), *words)
    assert [p.name for p in tmp_path.iterdir()] == ["no.sdf"]


def test_broken_records_are_skipped_counted_and_named(molflow, tmp_path):
    records = REAL.read_text().split("$$$$\n")
    records[1] = records[1].replace("V2000", "V9999")
    broken = tmp_path / "broken.sdf"
    broken.write_text("$$$$\n".join(records))
    result = molflow("evaluate", broken, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["n"] == 60
    assert "skipped record 2" in result.stderr and "1 of 61" in result.stderr

    (tmp_path / "no.sdf").write_text("this is not a molecule file\n")
    refused(molflow("evaluate", tmp_path / "no.sdf"), "no.sdf")
    refused(molflow("predict", tmp_path / "missing.sdf"), "missing.sdf")


def test_data_and_training_say_what_is_missing(molflow, tmp_path):
    refused(molflow("data", "prepare", "qm7"), "qm9")
    refused(molflow("data", "prepare", "qm9", "--source", tmp_path, "--out", tmp_path / "q.safetensors"), "qm9_part1")
    refused(molflow("train", "generator", "--data", tmp_path / "q.safetensors", "--out", tmp_path / "run"), "prepare")
    (tmp_path / "c.toml").write_text("[run]\nspeed = 3\n")
    refused(molflow("train", "property", "--config", tmp_path / "c.toml", "--out", tmp_path / "run"), "run.speed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.toml"]


def test_an_unknown_command_is_a_usage_error(molflow):
    refused(molflow("fly"), "fly")


# ---- in a process of its own -----------------------------------------------------------------------------------------

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def begin(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "molflow.cli", *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def test_the_command_that_is_installed() -> None:
    """As the script that pip makes of `[project.scripts]` runs it."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["molflow"].split(":")
    done = subprocess.run([sys.executable, "-c", f"import sys; from {module} import {function}; sys.exit({function}())",
                           "evaluate", REAL, "--json"], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 61 and done.stderr == ""


def test_bad_input_is_one_line_and_a_status(tmp_path: Path) -> None:
    running = begin("predict", tmp_path / "missing.sdf")
    out, err = running.communicate()
    assert running.returncode == 2 and out == ""
    assert err.startswith("molflow: ") and "missing.sdf" in err and err.count("\n") == 1


def test_an_interrupt_is_no_traceback(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.sdf"
    os.mkfifo(pipe)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore interrupts
    try:
        running = begin("evaluate", pipe)
    finally:
        signal.signal(signal.SIGINT, before)
    with pipe.open("w"):  # waits until the command reads
        running.send_signal(signal.SIGINT)
        _, err = running.communicate()
    assert running.returncode == 130 and "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_traceback(tiny_weights: dict[str, Path]) -> None:
    running = begin("predict", REAL, "--model", tiny_weights["guide"])
    assert running.stdout is not None
    running.stdout.close()
    _, err = running.communicate()
    assert running.returncode == 1 and err == ""
