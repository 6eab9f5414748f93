"""Pictures of real molecules, looked at pixel by pixel, and the table at the end."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from numpy.testing import assert_allclose
from rdkit.Chem.Draw import rdMolDraw2D
from rich.console import Console

from molflow import report
from molflow.designer import DesignRun
from molflow.molecules.convert import Molecule
from molflow.molecules.similarity import diversity

GAP, THREE = {"gap": 5.0}, {"gap": 5.0, "alpha": 70.0, "mu": 1.5}
SIX = {**THREE, "homo": -6.1, "lumo": -0.5, "cv": 30.0}
SHAPES = [(1, GAP, 0), (1, THREE, 1), (16, GAP, 4), (16, SIX, 16), (60, THREE, 9)]


def ink(pixels: np.ndarray) -> float:
    """Share of pixels that are not white."""
    return float((pixels[..., :3] < 0.9).any(-1).mean())


@pytest.mark.parametrize(("n", "targets", "broken"), SHAPES)
def test_every_molecule_gets_a_cell_with_a_picture(designed, tmp_path, n, targets, broken):
    run = designed(n, targets, broken)
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
    assert f"gap {value:.2f} (5) eV" in texts


@pytest.mark.parametrize(("n", "targets", "broken"), SHAPES)
def test_no_words_overlap_or_leave_the_picture(designed, n, targets, broken):
    run = designed(n, targets, broken)
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
def test_the_optimisation_is_drawn_from_the_data(designed, tmp_path, n, targets, broken):
    run = designed(n, targets, broken)
    figure = report.draw_optimisation(run)
    figure.savefig(tmp_path / "plot.png")
    assert 0.005 < ink(imread(tmp_path / "plot.png")) < 0.5
    course, *values = figure.axes
    assert len(course.lines) == n
    last = np.where(np.isinf(run.history), np.nan, run.history)[:, -1].clip(1e-3)
    assert_allclose(course.lines[-1].get_ydata(), last)
    assert [axes.get_xlabel().split(" / ")[0] for axes in values] == list(targets)
    assert f"{broken} never whole" in course.get_legend().texts[0].get_text() or not broken
    for axes, (name, target) in zip(values, targets.items(), strict=True):
        assert set(axes.patches[0].get_corners()[:, 0]) == {target}
        drawn = axes.collections[1].get_offsets()
        assert_allclose(drawn[:, 0], [m.properties[f"evaluator_{name}"] for m in run.molecules[broken:]])
        assert_allclose(drawn[:, 1], np.arange(broken + 1, n + 1))


def test_a_broken_molecule_does_not_stretch_the_axis(designed):
    run = designed(n=8, broken=1)
    run.molecules[0].properties["evaluator_gap"] = 1e6
    axes = report.draw_optimisation(run).axes[1]
    assert axes.get_xlim()[1] < 10


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_whatever_is_generated_can_be_drawn(designed, seed):
    rng = np.random.default_rng(seed)
    molecules = []
    for _ in range(4):
        n = int(rng.integers(0, 12))
        bonds = np.triu(rng.integers(0, 4, (n, n)) * (rng.random((n, n)) < rng.random()), 1)
        numbers = rng.integers(1, 119, n)
        molecules.append(Molecule(rng.normal(size=(n, 3)), numbers, np.minimum(rng.integers(-9, 10, n), numbers),
                                  bonds + bonds.T))
    run = replace(designed(n=1), molecules=molecules)
    FigureCanvasAgg(report.draw_molecules(run)).draw()


def test_a_molecule_that_rdkit_cannot_draw_gets_an_empty_cell(designed, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("Pre-condition Violation")

    monkeypatch.setattr(rdMolDraw2D, "PrepareMolForDrawing", fail)
    figure = report.draw_molecules(designed(n=3))
    assert [text.get_text() for text in figure.texts].count("cannot be drawn") == 3 and not figure.images


def test_the_users_own_matplotlib_settings_do_not_matter(tmp_path, designed):
    run = designed(n=2)
    plain = run.save(tmp_path / "plain")
    with matplotlib.rc_context({"text.usetex": True, "savefig.dpi": 7, "figure.facecolor": "black"}):
        other = run.save(tmp_path / "other")
    for name in ("molecules.png", "optimisation.png"):
        assert (plain / name).read_bytes() == (other / name).read_bytes()


# ---- the table at the end --------------------------------------------------------------------------------------------


def summary(run: DesignRun) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.summary(run))
    return console.export_text()


def test_summary_counts_every_molecule(designed):
    run = designed(n=4, targets=THREE, broken=1)
    same = replace(run.molecules[3], properties=dict(run.molecules[3].properties))
    run = replace(run, molecules=[*run.molecules[:3], same, same])
    for molecule, gap in zip(run.molecules, (4.0, 5.5, 5.0, 5.5, 5.5), strict=True):
        molecule.properties.update(evaluator_gap=gap, guide_gap=gap + 0.25)
    text = summary(run)
    row = next(line for line in text.splitlines() if "gap" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "gap", "5 eV", "5.100 ± 0.652", "0.500", "0.650"]
    differ = diversity({str(molecule.smiles) for molecule in run.molecules if molecule.is_valid})
    assert f"valid 4/5, unique 3/5, diversity {differ:.2f}, 180 NFE a molecule, 62 s" in text
    assert max(map(len, text.splitlines())) <= 80


def test_summary_of_one_and_of_nothing_but_wrecks(designed):
    assert "±" not in summary(designed(n=1, broken=0))
    run = designed(n=4, broken=4)
    assert "valid 0/4, unique 0/4" in summary(run)
    assert "2 too broken to have values: not in the means" in summary(run)
    for molecule in run.molecules:
        molecule.properties.update(evaluator_gap=np.nan, guide_gap=np.nan)
    assert "none" in summary(run)
