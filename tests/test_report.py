"""Folders and pictures of real molecules, read back from disk."""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from numpy.testing import assert_allclose
from rich.console import Console

from molflow import __version__, report
from molflow.designer import DesignRun
from molflow.molecules.convert import Molecule
from molflow.molecules.io import read_sdf

REAL, _ = read_sdf(Path(__file__).parent / "molecules" / "qm9_sample.sdf")
FILES = {"molecules.sdf", "results.csv", "run.json", "molecules.png", "optimisation.png"}
GAP, THREE = {"gap": 5.0}, {"gap": 5.0, "alpha": 70.0, "mu": 1.5}
SIX = {**THREE, "homo": -6.1, "lumo": -0.5, "cv": 30.0}


def spoil(molecule: Molecule, how: int) -> Molecule:
    """No bonds; a bond too many; positions that diverged; no atoms."""
    bonds, n = molecule.bonds.copy(), len(molecule.numbers)
    if how == 0:
        return replace(molecule, bonds=np.zeros_like(bonds))
    if how == 1:
        bonds[0, n - 1] = bonds[n - 1, 0] = 3 - bonds[0, n - 1]
        return replace(molecule, bonds=bonds)
    if how == 2:
        return replace(molecule, positions=np.full((n, 3), np.nan))
    return Molecule(np.zeros((0, 3)), molecule.numbers[:0], molecule.charges[:0], bonds[:0, :0])


def designed(folder: Path, n: int = 5, targets: dict[str, float] = GAP, broken: int = 1, rounds: int = 6,
             seed: int = 0) -> DesignRun:
    """A run as ``design`` returns it, of real molecules with made-up predictions; the first few are broken."""
    rng = np.random.default_rng(seed)
    molecules = []
    for i in range(n):
        molecule = REAL[(7 * i + seed) % len(REAL)]
        molecule = spoil(molecule, i % 4) if i < broken else molecule
        said = {name: np.nan if i < broken and i % 4 >= 2 else value + rng.normal(0, 0.2)
                for name, value in SIX.items()}
        properties = {f"{who}_{name}": value for name, value in said.items() for who in ("guide", "evaluator")}
        properties |= {f"target_{name}": value for name, value in targets.items()}
        molecules.append(replace(molecule, properties={**properties, "valid": int(i >= broken), "nfe": 100 * i}))
    history = np.minimum.accumulate(np.exp(rng.normal(1, 2, (rounds + 1, n))))
    history[:, :broken] = np.inf
    weights = {role: folder / "weights" / f"{role}.safetensors" for role in ("generator", "guide", "evaluator")}
    for role, path in weights.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(role)
    wanted = np.array(list(targets.values()))
    course = wanted + np.sqrt(np.minimum(history, 100))[:, :, None] * 0.1 * np.ones(len(targets))
    return DesignRun(molecules, targets, history, course, {
        "targets": targets, "n": n, "seed": np.int64(seed), "atoms": None, "device": "cpu",
        "budget": {"draws": 16, "evals": 12, "steps": 20}, "seconds": 61.7, "weights": weights}, ["a warning"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where weights lie, so that what is in ``tmp_path`` is what was saved."""
    return tmp_path_factory.mktemp("inputs")


# ---- what is written -------------------------------------------------------------------------------------------------


def test_molecules_and_table_read_back_as_they_were(tmp_path, inputs):
    run = designed(inputs, n=6, targets=THREE, broken=3)
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


def test_run_json_has_all_that_is_needed_to_repeat_it_and_no_path_of_this_machine(tmp_path, inputs):
    run = designed(inputs, targets=THREE, seed=4)
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
    for folder in (inputs, tmp_path, Path(report.__file__).parent, Path.home()):
        assert str(folder) not in text


# ---- never half a run, never a mix of two, never somebody else's folder ----------------------------------------------


def test_an_older_run_is_refused_or_replaced_as_a_whole(tmp_path, inputs):
    folder = designed(inputs).save(tmp_path / "run")
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    other = designed(inputs, n=2, seed=1)
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
def test_what_molflow_has_not_written_is_never_deleted(tmp_path, inputs, held, overwrite):
    folder = tmp_path / "foreign"
    if held is None:
        folder.write_text("a file")
    else:
        folder.mkdir()
        for name, text in held.items():
            (folder / name).write_text(text)
    for refused in (report.check_folder, designed(inputs).save):
        with pytest.raises(FileExistsError, match=r"^.*foreign exists and is not a run of molflow: [^\n]*$"):
            refused(folder, overwrite)
    assert folder.read_text() == "a file" if held is None else {p.name for p in folder.iterdir()} == set(held)
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]


def test_an_empty_folder_is_taken_and_a_link_stays_a_link(tmp_path, inputs):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    designed(inputs).save(link)
    designed(inputs, n=2).save(link, overwrite=True)
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
def test_a_save_that_fails_leaves_everything_as_it_was(tmp_path, inputs, monkeypatch, older, fault):
    folder, run = tmp_path / "run", designed(inputs, n=3)
    if older:
        designed(inputs, n=2).save(folder)
    before = contents(folder) if older else None
    if fault == "property":  # of the last one, when others are written already
        run.molecules[-1].properties["note"] = "two\nlines"
    elif fault == "interrupt":
        def interrupt(_):
            raise KeyboardInterrupt
        monkeypatch.setattr(report, "draw_optimisation", interrupt)
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


def test_a_folder_that_appears_meanwhile_is_left_alone(tmp_path, inputs, monkeypatch):
    def slow(run, draw=report.draw_optimisation):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "else.txt").write_text("somebody else's")
        return draw(run)

    monkeypatch.setattr(report, "draw_optimisation", slow)
    with pytest.raises(FileExistsError):
        designed(inputs).save(tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run") == {"else.txt": b"somebody else's"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# ---- pictures --------------------------------------------------------------------------------------------------------

SHAPES = [(1, GAP, 0), (1, THREE, 1), (16, GAP, 4), (16, SIX, 16), (60, THREE, 9)]


def ink(pixels: np.ndarray) -> float:
    """Share of pixels that are not white."""
    return float((pixels[..., :3] < 0.9).any(-1).mean())


@pytest.mark.parametrize(("n", "targets", "broken"), SHAPES)
def test_every_molecule_gets_a_cell_with_a_picture(inputs, tmp_path, n, targets, broken):
    run = designed(inputs, n, targets, broken)
    figure = report.draw_molecules(run)
    figure.savefig(tmp_path / "grid.png")
    pixels = imread(tmp_path / "grid.png")
    high, wide = pixels.shape[:2]
    assert 500 <= wide <= 1600 and 250 <= high <= 3000
    shown = min(n, report.SHOWN)
    assert len(figure.images) == shown
    for i, image in enumerate(figure.images):
        left, below = int(image.ox), int(image.oy)
        cell = pixels[high - below - image.get_size()[0]:high - below, left:left + image.get_size()[1]]
        assert cell.shape[:2] == image.get_size()
        if len(run.molecules[i].numbers):
            assert ink(cell) > 0.001
    texts = [text.get_text() for text in figure.texts]
    assert (f"first 48 of {n} molecules" in texts[0]) == (n > 48)
    for name in targets:
        assert sum(text.startswith(f"{name} ") for text in texts) == shown
    value = run.molecules[-1 if n <= 48 else 47].properties["evaluator_gap"]
    assert f"gap {value:.2f} (5.00) eV" in texts


@pytest.mark.parametrize(("n", "targets", "broken"), SHAPES)
def test_no_words_overlap_or_leave_the_picture(inputs, n, targets, broken):
    run = designed(inputs, n, targets, broken)
    for figure in (report.draw_molecules(run), report.draw_optimisation(run)):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        words = list(figure.texts)
        for axes in figure.axes:
            words += [axes.xaxis.label, axes.yaxis.label, axes.get_legend(), axes.patch]
        boxes = [word.get_window_extent(canvas.get_renderer()) for word in words if word is not None]
        for box in boxes:
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        for one, other in combinations(boxes, 2):
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            along = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(across, along) < 1  # pixels


@pytest.mark.parametrize(("n", "targets", "broken"), SHAPES)
def test_the_optimisation_is_drawn_from_the_data(inputs, tmp_path, n, targets, broken):
    run = designed(inputs, n, targets, broken)
    figure = report.draw_optimisation(run)
    figure.savefig(tmp_path / "plot.png")
    assert 0.005 < ink(imread(tmp_path / "plot.png")) < 0.5
    courses, values = figure.axes[::2], figure.axes[1::2]
    for row, axes in enumerate(courses):
        seen = np.where(np.isinf(run.history), np.nan, run.course[:, :, row])
        assert len(axes.lines) == n + 1
        assert_allclose(axes.lines[-1].get_ydata(), seen[:, -1])
        assert set(axes.lines[0].get_ydata()) == {list(targets.values())[row]}
    assert [axes.get_xlabel().split(" / ")[0] for axes in values] == list(targets)
    assert f"{broken} never whole" in courses[0].get_legend().texts[1].get_text() or not broken
    for axes, (name, target) in zip(values, targets.items(), strict=True):
        assert set(axes.lines[0].get_xdata()) == {target}
        drawn = axes.collections[1].get_offsets()
        assert_allclose(drawn[:, 0], [m.properties[f"evaluator_{name}"] for m in run.molecules[broken:]])
        assert_allclose(drawn[:, 1], np.arange(broken + 1, n + 1))


def test_a_broken_molecule_does_not_stretch_the_axis(inputs):
    run = designed(inputs, n=8, broken=1)
    run.molecules[0].properties["evaluator_gap"] = 1e6
    axes = report.draw_optimisation(run).axes[1]
    assert axes.get_xlim()[1] < 10


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_whatever_is_generated_can_be_drawn(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    molecules = []
    for _ in range(4):
        n = int(rng.integers(0, 12))
        bonds = np.triu(rng.integers(0, 4, (n, n)) * (rng.random((n, n)) < rng.random()), 1)
        molecules.append(Molecule(rng.normal(size=(n, 3)), rng.integers(1, 119, n), rng.integers(-9, 10, n),
                                  bonds + bonds.T))
    run = replace(designed(tmp_path_factory.mktemp("w"), n=1), molecules=molecules)
    FigureCanvasAgg(report.draw_molecules(run)).draw()


def test_a_molecule_that_rdkit_cannot_draw_gets_an_empty_cell(inputs, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("Pre-condition Violation")

    monkeypatch.setattr(report.rdMolDraw2D, "PrepareMolForDrawing", fail)
    figure = report.draw_molecules(designed(inputs, n=3))
    assert [text.get_text() for text in figure.texts].count("cannot be drawn") == 3 and not figure.images


def test_the_users_own_matplotlib_settings_do_not_matter(tmp_path, inputs):
    run = designed(inputs, n=2)
    plain = contents(run.save(tmp_path / "plain"))
    with matplotlib.rc_context({"text.usetex": True, "savefig.dpi": 7, "figure.facecolor": "black"}):
        other = contents(run.save(tmp_path / "other"))
    for name in ("molecules.png", "optimisation.png"):
        assert plain[name] == other[name]


# ---- the table at the end --------------------------------------------------------------------------------------------


def summary(run: DesignRun) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.summary(run))
    return console.export_text()


def test_summary_counts_every_molecule(inputs):
    run = designed(inputs, n=4, targets=THREE, broken=1)
    same = replace(run.molecules[3], properties=dict(run.molecules[3].properties))
    run = replace(run, molecules=[*run.molecules[:3], same, same])
    for molecule, gap in zip(run.molecules, (4.0, 5.5, 5.0, 5.5, 5.5), strict=True):
        molecule.properties.update(evaluator_gap=gap, guide_gap=gap + 0.25)
    text = summary(run)
    row = next(line for line in text.splitlines() if "gap" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "gap", "5.000 eV", "5.100 ± 0.652", "0.500", "0.650"]
    assert "valid 4/5, unique 3/5, 180 NFE a molecule, 62 s" in text
    assert max(map(len, text.splitlines())) <= 80


def test_summary_of_one_and_of_nothing_but_wrecks(inputs):
    assert "±" not in summary(designed(inputs, n=1, broken=0))
    run = designed(inputs, n=4, broken=4)
    assert "valid 0/4, unique 0/4" in summary(run)
    assert "2 too broken to have values: not in the means" in summary(run)
    for molecule in run.molecules:
        molecule.properties.update(evaluator_gap=np.nan, guide_gap=np.nan)
    assert "none" in summary(run)
