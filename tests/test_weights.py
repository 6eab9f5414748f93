"""The weights that ship: they load without running code, say what they are, and do what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from molflow.designer import Budget, Problem, solve
from molflow.models import Generator, Predictor
from molflow.molecules.convert import collate, unbatch
from molflow.molecules.io import read_sdf
from molflow.molecules.metrics import ATOM_STABILITY, VALID, evaluate
from molflow.nn.property import PROPERTIES, RESOLUTION
from molflow.nn.weights import SHIPPED, WeightsError, fill, read_card

REAL, _ = read_sdf(Path(__file__).parent / "molecules" / "qm9_sample.sdf")


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator.load(device="cpu")


@pytest.mark.parametrize("name", ["generator", "guide", "evaluator"])
def test_every_file_is_small_and_has_a_card(name):
    path = SHIPPED / f"{name}.safetensors"
    assert path.stat().st_size < 30e6
    card = read_card(path, "generator" if name == "generator" else "property")
    assert {"data", "part", "molecules_seen", "hours", "settings", "command", "commit", "machine"} <= set(card.training)
    assert card.metrics


def test_guide_and_evaluator_never_shared_a_molecule(generator):
    parts = {name: Predictor.load(name, "cpu").card.training["part"] for name in ("guide", "evaluator")}
    assert parts == {"guide": "half_b", "evaluator": "half_a"}
    assert generator.card.training["part"] == "half_b"


def test_unguided_molecules_are_mostly_sound(generator):
    sizes = generator.prior.draw_sizes(48, np.random.default_rng(0))
    figures = evaluate(unbatch(generator.sample(sizes, seed=0)))
    assert figures[ATOM_STABILITY] > 0.92 and figures[VALID] > 0.6


def test_guide_and_evaluator_agree_on_real_molecules():
    """Two networks trained on different molecules have only the truth in common."""
    batch = collate(REAL)
    apart = (Predictor.load("guide", "cpu").predict(batch) - Predictor.load("evaluator", "cpu").predict(batch)).abs()
    for name, miss in zip(PROPERTIES, apart.median(0).values.tolist(), strict=True):
        assert miss < 5 * RESOLUTION[name], name


def test_descent_through_the_flow_comes_nearer_the_target(generator):
    guide = Predictor.load("guide", "cpu")
    problem = Problem(("gap",), torch.full((4, 1), 5.0), np.array([14, 15, 16, 17]))
    found = solve(problem, generator, guide, Budget(draws=2, evals=5), seed=1)
    first, last = found.history[0], found.history[-1]
    moved = last < 0.5 * first
    assert moved.sum() >= 2, (first, last)
    column = PROPERTIES.index("gap")
    drawn = solve(problem, generator, guide, Budget(draws=2, evals=0), seed=1)
    assert (found.guide[:, column] - 5).abs().mean() < (drawn.guide[:, column] - 5).abs().mean()


def test_weights_of_another_shape_are_refused(tiny_weights, generator):
    with pytest.raises(WeightsError, match="does not fit"):
        fill(generator.network.__class__(generator.vocabulary, generator.network.config), tiny_weights["generator"])
