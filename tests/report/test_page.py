"""The page of a run as text: what it says, and what it says of a folder that is none. A browser opens it elsewhere."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from molflow import write_report
from molflow.molecules.convert import Molecule
from molflow.molecules.io import read_sdf, read_xyz
from molflow.nn.weights import SHIPPED
from molflow.report import content
from molflow.report.figures import readings
from molflow.report.reading import read_run
from molflow.report.trajectory import read_trajectory, write_trajectory

THREE = {"gap": 5.0, "alpha": 70.0, "mu": 1.5}


@pytest.fixture(scope="module")
def saved(designed, tmp_path_factory) -> Path:
    """Seven molecules; four broken, of which one that no SDF can hold. To be copied, not changed."""
    return designed(n=7, broken=4).save(tmp_path_factory.mktemp("runs") / "run")


def data(page: Path) -> dict:
    """What the page hands its scripts."""
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_a_saved_run_has_its_page_and_the_function_writes_the_same(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "run")
    page = write_report(folder, tmp_path / "deep" / "page.html")
    assert page.read_bytes() == (folder / "report.html").read_bytes()
    with pytest.raises(FileExistsError, match=r"^.*page\.html exists: choose another name or give --overwrite$"):
        write_report(folder, page)
    with pytest.raises(FileNotFoundError, match=r"^there is no folder .*page\.html$"):
        write_report(page)
    with pytest.raises(IsADirectoryError, match="name a file"):
        write_report(folder, tmp_path, overwrite=True)
    assert write_report(folder, overwrite=True) == folder / "report.html"
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_every_molecule_is_in_it_as_it_was_generated(designed, tmp_path):
    run = designed(n=6, broken=4)
    folder = run.save(tmp_path / "run")
    said = data(folder / "report.html")
    assert base64.b64decode(said["sdf"]) == (folder / "molecules.sdf").read_bytes()
    assert len(said["molecules"]) == 6
    for molecule, seen in zip(run.molecules, said["molecules"], strict=True):
        if not np.isfinite(molecule.positions).all():
            assert seen["atoms"] == [] and seen["bonds"] == []
            continue
        assert_allclose(np.array([atom[1:] for atom in seen["atoms"]]).reshape(-1, 3), molecule.positions, atol=1e-4)
        bonds = np.zeros_like(molecule.bonds)
        for i, j, order in seen["bonds"]:
            bonds[i, j] = bonds[j, i] = order
        assert (bonds == molecule.bonds).all()
        assert dict(seen["fields"]).get("formula", "") == molecule.formula
    assert [frame["t"] for frame in said["frames"]] == [0, 0.25, 0.5, 0.75, 1]
    assert_allclose([atom[1:] for atom in said["frames"][0]["atoms"]], run.trajectory[0].positions, atol=1e-4)


def test_what_molflow_verify_added_is_compared_with_the_target(designed, tmp_path):
    """Its fields may stand in either file. GFN2-xTB is compared on B3LYP's scale: gap 0.516 x + 4.241 eV."""
    run = designed(n=4, targets=THREE, broken=1)
    run.molecules[1].properties.update({"xtb_gap [eV]": 1.5, "xtb_alpha [Bohr^3]": 71.0, "xtb_verdict": "agrees",
                                        "xtb_strain [kcal/mol]": 2.25, "xtb_keeps_bonds": 1, "xtb_time [s]": 3.5})
    run.molecules[2].properties.update({"xtb_gap [eV]": 2.5, "xtb_verdict": "off target", "xtb_reason": "gap off by 1"})
    folder = run.save(tmp_path / "run")
    lines = (folder / "results.csv").read_text().splitlines()
    more = ["dft_gap [eV],dft_gap [Ha]", ",", "5.5,", "4.0,9", ","]
    (folder / "results.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, more, strict=True)) + "\n")
    read = read_run(folder)
    found = {(reading.judge, reading.name): reading for reading in readings(read.fields, read.targets)}
    assert set(found) == {(judge, name) for judge in ("guide", "evaluator") for name in THREE} | {
        ("xtb", "gap"), ("dft", "gap")}
    assert_allclose(found["xtb", "gap"].misses, [0.516 * 1.5 + 4.241 - 5, 0.516 * 2.5 + 4.241 - 5])
    assert_allclose(found["dft", "gap"].misses, [0.5, 1.0])
    assert found["dft", "gap"].achieved == "4.750 ± 1.061"
    columns, rows = content.table(read)
    cells = {column.title: [row.cells[i].text for row in rows] for i, column in enumerate(columns)}
    assert list(cells)[:4] == ["gap guide", "gap evaluator", "gap GFN2-xTB*", "gap DFT"]
    assert cells["gap DFT"] == ["", "5.500", "4.000", ""] and cells["xtb strain"] == ["", "2.250", "", ""]
    assert cells["xtb keeps bonds"] == ["", "yes", "", ""] and content.outcome(read)[2][0] == "1/4"
    assert [column.unit for column in columns if column.title == "xtb strain"] == ["kcal/mol"]
    assert set(cells) == {f"{name} {who}" for name in THREE for who in ("guide", "evaluator", "miss, evaluator")} | {
        "gap GFN2-xTB*", "gap DFT", "xtb strain", "xtb keeps bonds"}
    assert [row.verdicts for row in rows] == [[], ["GFN2-xTB: agrees"], ["GFN2-xTB: off target: gap off by 1"], []]
    for i, row in enumerate(rows):
        miss = [cell.value for column, cell in zip(columns, row.cells, strict=True)
                if column.title == "mu miss, evaluator"]
        assert_allclose(miss, [abs(run.molecules[i].properties["evaluator_mu"] - 1.5)])
    lanes = content.charts(read)[0]["lanes"]
    assert [lane["judge"] for lane in lanes] == ["guide", "evaluator", "GFN2-xTB*", "DFT"]
    assert [dot[0] for dot in lanes[2]["dots"]] == [1, 2]
    assert "by a straight line" in (write_report(folder, overwrite=True)).read_text()


def test_a_file_for_each_piece_of_a_fragment(designed, tmp_path):
    run = designed(n=2)
    run = replace(run, settings={**run.settings, "fragment": "CO.c1ccccc1"})
    words = content.command(read_run(run.save(tmp_path / "run")).record["settings"])
    assert "--fragment FRAGMENT1.sdf FRAGMENT2.sdf " in words


def test_places_in_a_chart_are_linear_and_the_broken_ones_stay_at_the_edge(designed, tmp_path):
    run = designed(n=4, broken=1)
    for molecule, gap in zip(run.molecules, (1e6, 4.0, 5.0, 7.0), strict=True):
        molecule.properties.update(guide_gap=gap, evaluator_gap=gap)
    chart = content.charts(read_run(run.save(tmp_path / "run")))[0]
    places = [place for _, place, _, _ in chart["lanes"][1]["dots"]]
    assert places[0] == 100 and [places[2]] * 2 == list(chart["wanted"])
    assert (places[3] - places[2]) / (places[2] - places[1]) == pytest.approx(2, abs=0.01)
    assert [valid for *_, valid in chart["lanes"][1]["dots"]] == [False, True, True, True]
    for place, label in chart["ticks"]:
        assert place == pytest.approx(places[1] + (float(label) - 4) * (places[2] - places[1]), abs=0.05)


def test_nothing_misses_an_extreme(designed, tmp_path):
    """Nor is a mean of infinities printed."""
    run = designed(n=3, targets={"alpha": "max", "mu": "<1"})
    folder = run.save(tmp_path / "run")
    read = read_run(folder)
    assert [column.title for column in content.table(read)[0]] == [
        "alpha guide", "alpha evaluator", "mu guide", "mu evaluator", "mu miss, evaluator"]
    said = {label: value for value, label in content.outcome(read)}
    alphas = [molecule.properties["evaluator_alpha"] for molecule in run.molecules]
    assert said["mean polarisability α, by the evaluator"] == f"{np.mean(alphas):.3f} Bohr³"
    assert "inf" not in str(content.outcome(read))
    assert "nan" not in (folder / "report.html").read_text().split("<body")[1][:20000]


def test_the_command_repeats_the_run(designed, tmp_path):
    """Options as the shell takes them; weights are named only where they are not the shipped ones."""
    run = designed(n=2, targets={"gap": "4..5.25", "mu": "<1", "cv": 30}, seed=3)
    run = replace(run, settings={**run.settings, "atoms": 9, "formula": "C2H6O", "lead": "CO", "similarity": 0.3,
                                 "fragment": "CO", "weights": {
        **run.settings["weights"], "guide": SHIPPED / "guide.safetensors"}})
    words = content.command(read_run(run.save(tmp_path / "run")).record["settings"])
    assert words == ("molflow design --target gap=4..5.25 --target 'mu<1' --target cv=30 -n 2 --seed 3 --lookups 2 "
                     "--draws 16 --generations 3 --gradients 1 --atoms 9 --formula C2H6O --fragment FRAGMENT.sdf "
                     "--from LEAD.sdf --similarity 0.3 --device cpu --generator generator.safetensors "
                     "--evaluator evaluator.safetensors --out DIR")
    known = subprocess.run([sys.executable, "-m", "molflow.cli", "design", "--help"], capture_output=True, text=True,
                           env={**os.environ, "COLUMNS": "200"}, check=True).stdout
    assert all(word in known for word in shlex.split(words) if word.startswith("-"))


def test_a_trajectory_comes_back_and_ase_reads_it(designed, tmp_path):
    frames = designed(n=3).trajectory
    write_trajectory(tmp_path / "t.xyz", frames)
    for before, after in zip(frames, read_trajectory(tmp_path / "t.xyz"), strict=True):
        assert_allclose(after.positions, before.positions, atol=1e-6)
        assert (after.bonds == before.bonds).all() and (after.charges == before.charges).all()
        assert after.properties == before.properties
    assert [atoms.info["t"] for atoms in read_xyz(tmp_path / "t.xyz")] == [0, 0.25, 0.5, 0.75, 1]


def test_a_lone_atom_has_a_trajectory_too(tmp_path):
    atom = Molecule(np.zeros((1, 3)), np.array([18]), np.array([0]), np.zeros((1, 1), int), {"molecule": 1, "t": 0.5})
    write_trajectory(tmp_path / "t.xyz", [atom, atom])
    assert [frame.properties["t"] for frame in read_trajectory(tmp_path / "t.xyz")] == [0.5, 0.5]


def test_a_notebook_shows_a_table_with_drawings_and_no_script(designed):
    run = designed(n=60, targets=THREE, broken=3)
    run.molecules[4].properties["evaluator_gap"] = 4.3217
    text = run._repr_html_()
    assert text.count("<svg") == 48 and text.count("<tr>") == 49 and "<script" not in text
    assert "60 molecules designed, the first 48" in text
    assert "<td>4.322</td>" in text and "(target 70 Bohr³)" in text and "Explicit valence" in text


# ---- folders that are none -------------------------------------------------------------------------------------------


def edit(name: str, change) -> object:
    def damage(folder: Path) -> None:
        (folder / name).write_text(change((folder / name).read_text()))
    return damage


def settings(**changes: object) -> object:
    def change(text: str) -> str:
        record = json.loads(text)
        record["settings"].update(changes)
        return json.dumps(record)
    return edit("run.json", change)


DAMAGE = {
    "no run.json": (lambda folder: (folder / "run.json").unlink(), "is not a run of molflow"),
    "run.json cut": (edit("run.json", lambda text: text[:100]), "is not a run of molflow"),
    "settings gone": (edit("run.json", lambda text: text.replace('"settings"', '"sittings"')), "settings"),
    "settings a list": (edit("run.json", lambda text: json.dumps({**json.loads(text), "settings": []})), "settings"),
    "targets of text": (settings(targets={"gap": "five"}), "cannot read 'five'"),
    "targets a list": (settings(targets={"gap": [5]}), "targets are neither"),
    "no targets": (settings(targets={}), "no targets"),
    "seconds of text": (settings(seconds="long"), "seconds"),
    "weights of text": (settings(weights={"guide": "x"}), "weights"),
    "no results": (lambda folder: (folder / "results.csv").unlink(), "has no results.csv"),
    "results cut": (edit("results.csv", lambda text: text[:text.index("\n", 900)]), "different runs"),
    "results too wide": (edit("results.csv", lambda text: text.strip() + ",1,2\n"), "results.csv is damaged"),
    "results not text": (lambda folder: (folder / "results.csv").write_bytes(b"\xff\xfe\x00"), "results.csv is dam"),
    "quotes open": (edit("results.csv", lambda text: text + '"'), "results.csv is damaged"),
    "no molecules": (lambda folder: (folder / "molecules.sdf").unlink(), "has no molecules.sdf"),
    "molecules empty": (edit("molecules.sdf", lambda _: ""), "molecules.sdf is damaged"),
    "molecules cut": (edit("molecules.sdf", lambda text: text[:text.rindex("$$$$", 0, -8) + 5]), "different runs"),
    "fragment a number": (settings(fragment=5), "fragment cannot be '5'"),
    "lead without similarity": (settings(lead="C", similarity=None), "similarity"),
    "model a list": (settings(model=["qm9"]), "model cannot be"),
    "model of none": (settings(model="../../etc"), "there is no model"),
    "half a character": (edit("run.json", lambda text: text.replace("a warning", "\\ud800")), "run.json is damaged"),
    "brackets": (edit("run.json", lambda _: "[" * 100_000), "is not a run of molflow"),
    "time not a number": (edit("trajectory.xyz", lambda text: text.replace("t=0.25", "t=nan")), "trajectory.xyz"),
    "molecule without end": (edit("trajectory.xyz", lambda text: text.replace("molecule=7", "molecule=inf")),
                             "trajectory.xyz is damaged"),
    "molecule that is not there": (edit("trajectory.xyz", lambda text: text.replace("molecule=7", "molecule=8")),
                                   "there is no molecule 8"),
    "another trajectory": (edit("trajectory.xyz", lambda _: "1\nt=0\nC 0 0 0\n"), "trajectory.xyz is damaged"),
    "trajectory of two": (edit("trajectory.xyz", lambda text: text + "1\nt=0 molecule=7\nC 0 0 0\n"), "one molecule"),
    "trajectory's bonds": (edit("trajectory.xyz", lambda text: text.replace("0-1:2", "0-99:2")), "trajectory.xyz"),
    "trajectory's order": (edit("trajectory.xyz", lambda text: text.replace("0-1:2", "0-1:9")), "trajectory.xyz"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_one_sentence(saved, tmp_path, damage):
    folder = shutil.copytree(saved, tmp_path / "run")
    (folder / "report.html").unlink()
    spoil, words = DAMAGE[damage]
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
        write_report(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert not [path for path in folder.iterdir() if "report" in path.name]


def test_the_command_writes_the_page_or_says_why_not(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "run")

    def molflow(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "molflow.cli", "report", *map(str, arguments)], text=True,
                              capture_output=True, env={**os.environ, "COLUMNS": "120"}, cwd=tmp_path, check=False)

    done = molflow("run", "--out", "page.html")
    assert done.returncode == 0 and done.stdout == "written to page.html\n", done.stderr
    assert (tmp_path / "page.html").read_bytes() == (folder / "report.html").read_bytes()
    refused = molflow("nowhere")
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr == "molflow: there is no folder nowhere\n"
    assert read_sdf(folder / "molecules.sdf")[1]  # the broken one that no SDF can hold was no obstacle


def test_a_name_out_of_a_file_never_becomes_a_path(saved, tmp_path, monkeypatch):
    """The weights that a run names are looked for among those that ship, to say whether they are the same."""
    folder = shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "secret.safetensors").write_bytes(b"x")
    record = json.loads((folder / "run.json").read_text())
    role = os.path.relpath(tmp_path / "secret", SHIPPED)
    known = {"file": "a.safetensors", "sha256": hashlib.sha256(b"x").hexdigest()}
    record["settings"]["weights"] = {role: known, "a" * 5000: known, "a\0b": known}
    (folder / "run.json").write_text(json.dumps(record))
    command = content.command(read_run(folder).record["settings"])
    assert f"--{role} a.safetensors" in command and command.count("a.safetensors") == 3


@pytest.mark.parametrize("value", ["1e308", "inf", "nan", "1e-320", "", "text"])
def test_values_at_the_ends_of_the_scale_make_a_page_that_browsers_can_read(saved, tmp_path, value):
    folder = shutil.copytree(saved, tmp_path / "run")
    with (folder / "results.csv").open(newline="") as file:
        names, *rows = csv.reader(file)
    rows[4][names.index("evaluator_gap")], rows[5][names.index("evaluator_gap")] = value, "-1e308"
    with (folder / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    text = write_report(folder, overwrite=True).read_text(encoding="utf-8")
    said = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(said, parse_constant=pytest.fail)["molecules"]  # JavaScript's JSON has neither NaN nor Infinity
    assert "left:nan" not in text and "left:inf" not in text
