"""The folder of a run, of real molecules, read back from disk."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from numpy.testing import assert_allclose

from molflow import __version__, report
from molflow.molecules.io import read_sdf

FILES = {"molecules.sdf", "trajectory.xyz", "results.csv", "run.json", "molecules.png", "optimisation.png",
         "report.html"}
THREE = {"gap": 5.0, "alpha": 70.0, "mu": 1.5}
SIX = {**THREE, "homo": -6.1, "lumo": -0.5, "cv": 30.0}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- what is written -------------------------------------------------------------------------------------------------


def test_molecules_and_table_read_back_as_they_were(tmp_path, designed):
    run = designed(n=6, targets=THREE, broken=3)
    assert run.save(tmp_path / "deep" / "run") == tmp_path / "deep" / "run"
    assert {path.name for path in (tmp_path / "deep" / "run").iterdir()} == FILES
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]

    read, skipped = read_sdf(tmp_path / "deep" / "run" / "molecules.sdf")
    table = pd.read_csv(tmp_path / "deep" / "run" / "results.csv")
    assert [record.record for record in skipped] == [3]  # no SDF can hold positions that are not finite
    assert len(read) == 5 and len(table) == 6
    fields = {f"{who}_{name}" for name in SIX for who in ("guide", "evaluator")}
    fields |= {"target_gap", "target_alpha", "target_mu", "valid", "nfe"}
    assert set(table.columns) == fields | {"smiles", "formula", "fault"}
    written = [(before, row) for before, (_, row) in zip(run.molecules, table.iterrows(), strict=True)]
    for (before, row), after in zip(written[:2] + written[3:], read, strict=True):
        assert_allclose(after.positions, before.positions, atol=1e-4)
        assert (after.bonds == before.bonds).all() and (after.charges == before.charges).all()
        assert set(after.properties) == fields
        for key, value in before.properties.items():
            assert_allclose(after.properties[key], value)
            assert_allclose(row[key], value)
        assert row["formula"] == before.formula
    assert list(table["smiles"][3:]) == [molecule.smiles for molecule in run.molecules[3:]]


def test_run_json_has_all_that_is_needed_to_repeat_it_and_no_path_of_this_machine(tmp_path, designed):
    run = designed(targets=THREE, seed=4)
    run.save(tmp_path / "run")
    text = (tmp_path / "run" / "run.json").read_text()
    read = json.loads(text)
    assert set(read) == {"format", "time", "molflow", "commit", "settings", "units", "warnings", "machine"}
    assert read["molflow"] == __version__ and read["warnings"] == ["a warning"]
    assert read["settings"] == {**run.settings, "weights": {
        role: {"file": f"{role}.safetensors", "sha256": hashlib.sha256(role.encode()).hexdigest()}
        for role in ("generator", "guide", "evaluator")}}
    assert read["units"] == {"gap": "eV", "alpha": "Bohr^3", "mu": "D"}
    assert {"cpu", "cores", "gpu", "python", "torch", "rdkit"} <= set(read["machine"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", read["time"])
    for folder in (run.settings["weights"]["guide"].parent, tmp_path, Path(report.__file__).parent, Path.home()):
        assert str(folder) not in text


# ---- never half a run, never a mix of two, never somebody else's folder ----------------------------------------------


def test_an_older_run_is_refused_or_replaced_as_a_whole(tmp_path, designed):
    folder = designed().save(tmp_path / "run")
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    other = designed(n=2, seed=1)
    for refused in (lambda: report.check_folder(folder, False), lambda: other.save(folder)):
        with pytest.raises(FileExistsError, match=r"^.*run exists: choose another name or give --overwrite$"):
            refused()
        assert contents(folder) == before
    report.check_folder(folder, True)
    other.save(folder, overwrite=True)
    assert {path.name for path in folder.iterdir()} == FILES
    assert len(read_sdf(folder / "molecules.sdf")[0]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("held", [{"thesis.tex": "x"}, {"run.json": '{"a": 1}'}, {"run.json": "[1]"},
                                  {"run.json": '{"format'}, {".hidden": ""}, None])
def test_what_molflow_has_not_written_is_never_deleted(tmp_path, designed, held, overwrite):
    folder = tmp_path / "foreign"
    if held is None:
        folder.write_text("a file")
    else:
        folder.mkdir()
        for name, text in held.items():
            (folder / name).write_text(text)
    for refused in (report.check_folder, designed().save):
        with pytest.raises(FileExistsError, match=r"^.*foreign exists and is not a run of molflow: [^\n]*$"):
            refused(folder, overwrite)
    assert folder.read_text() == "a file" if held is None else {p.name for p in folder.iterdir()} == set(held)
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]


def test_an_empty_folder_is_taken_and_a_link_stays_a_link(tmp_path, designed):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    designed().save(link)
    designed(n=2).save(link, overwrite=True)
    assert link.is_symlink() and {path.name for path in real.iterdir()} == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_folder_that_cannot_be_made_is_found_before_the_work_starts(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is not a folder"):
        report.check_folder(tmp_path / "file" / "deep" / "run", False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileExistsError, match="in use"):
        report.check_folder(Path(), True)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(NotADirectoryError, match="written to"):
        report.check_folder(tmp_path / "run", False)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("fault", ["property", "interrupt", "rename"])
def test_a_save_that_fails_leaves_everything_as_it_was(tmp_path, designed, monkeypatch, older, fault):
    folder, run = tmp_path / "run", designed(n=3)
    if older:
        designed(n=2).save(folder)
    before = contents(folder) if older else None
    if fault == "property":  # of the last one, when others are written already
        run.molecules[-1].properties["note"] = "two\n\nlines"
    elif fault == "interrupt":
        def interrupt(_):
            raise KeyboardInterrupt
        monkeypatch.setattr(report.folder, "draw_optimisation", interrupt)
    else:
        rename = Path.rename

        def fail(self, target):
            if self.name == "new":
                raise OSError("disk")
            return rename(self, target)
        monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises((ValueError, KeyboardInterrupt, OSError)):
        run.save(folder, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == (["run"] if older else [])
    if older:
        assert contents(folder) == before


def test_a_folder_that_appears_meanwhile_is_left_alone(tmp_path, designed, monkeypatch):
    def slow(run, draw=report.draw_optimisation):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "else.txt").write_text("somebody else's")
        return draw(run)

    monkeypatch.setattr(report.folder, "draw_optimisation", slow)
    with pytest.raises(FileExistsError):
        designed().save(tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run") == {"else.txt": b"somebody else's"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
