"""The weights that ship: they load without running code, say what they are, and do what they are for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from molflow.adapters import image
from molflow.data.moses3d import conformer
from molflow.inverse.operators import Identity, Masked
from molflow.inverse.posterior import average
from molflow.models import Generator, Predictor
from molflow.molecules.convert import collate, from_rdkit, unbatch
from molflow.molecules.druglike import scores_of
from molflow.molecules.io import read_sdf
from molflow.molecules.metrics import ATOM_STABILITY, CONNECTED, VALID, evaluate
from molflow.molecules.state import decode
from molflow.nn.property import PROPERTIES, RESOLUTION
from molflow.nn.weights import MODELS, ROLES, WeightsError, fill, read_card, shipped
from molflow.oracles import xtb
from molflow.search import POWER, Atlas, Budget, Problem, solve
from molflow.search.problem import STEPS

REAL, _ = read_sdf(Path(__file__).parent / "molecules" / "qm9_sample.sdf")


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator.load(device="cpu")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("role", ROLES)
def test_every_file_is_small_and_has_a_card(model, role):
    path = shipped(model, role)
    assert path.stat().st_size < 30e6
    card = read_card(path, "generator" if role == "generator" else "property")
    assert card.data == model
    assert {"data", "part", "molecules_seen", "hours", "settings", "command", "commit", "machine"} <= set(card.training)
    assert card.metrics


@pytest.mark.parametrize("model", MODELS)
def test_guide_and_evaluator_never_shared_a_molecule(model):
    parts = {role: read_card(shipped(model, role), None).training["part"] for role in ROLES}
    assert parts == {"generator": "half_b", "guide": "half_b", "evaluator": "half_a"}


def test_unguided_molecules_are_mostly_sound(generator):
    sizes = generator.prior.draw_sizes(48, np.random.default_rng(0))
    figures = evaluate(unbatch(generator.sample(sizes, seed=0)))
    assert figures[ATOM_STABILITY] > 0.92 and figures[VALID] > 0.6


def test_unguided_druglike_molecules_hang_together():
    flow = Generator.load(shipped("moses3d", "generator"), "cpu")
    figures = evaluate(unbatch(flow.sample(flow.prior.draw_sizes(48, np.random.default_rng(0)), seed=0)))
    assert figures[CONNECTED] > 0.7 and figures[VALID] > 0.4  # of 1,000 0.90 and 0.68


@pytest.mark.parametrize("role", ["guide", "evaluator"])
def test_druglike_molecules_are_read_as_they_are(role):
    """Against RDKit's scores and GFN2-xTB's gap, in units of the spread of such molecules."""
    spread = {"qed": 0.15, "logp": 1.0, "tpsa": 20.0, "sa": 0.6, "mw": 25.0, "gap": 0.6}
    molecules = [from_rdkit(conformer(smiles, 1)) for smiles in (
        "O=C(Nc1ccc(F)cc1)c1ccnc(N2CCOCC2)c1", "CC(C)Cc1ccc(cc1)C(C)C(=O)NCC1CCCO1",
        "Cc1ccc(cc1)S(=O)(=O)NC(=O)NN1CC2CCCC2C1", "Clc1ccccc1C1=NCC(=O)Nc2ccccc21")]
    reader = Predictor.load(shipped("moses3d", role), "cpu")
    said = reader.predict(collate(molecules))
    for name, unit in spread.items():
        true = torch.tensor([xtb.properties(one, alpha=False).gap if name == "gap" else scores_of(one.smiles)[name]
                             for one in molecules])
        assert (said[:, reader.properties.index(name)] - true).abs().mean() < 0.5 * unit, name


def test_guide_and_evaluator_agree_on_real_molecules():
    """Two networks trained on different molecules have only the truth in common."""
    batch = collate(REAL)
    apart = (Predictor.load("guide", "cpu").predict(batch) - Predictor.load("evaluator", "cpu").predict(batch)).abs()
    for name, miss in zip(PROPERTIES, apart.median(0).values.tolist(), strict=True):
        assert miss < 5 * RESOLUTION[name], name


def test_each_part_of_the_search_comes_nearer_the_target(generator):
    guide, wanted = Predictor.load("guide", "cpu"), torch.full((4, 1), 5.0)
    problem = Problem(("gap",), wanted, wanted, np.array([14, 15, 16, 17]))
    for budget in (Budget(draws=2, gradients=0), Budget(draws=2, generations=0)):
        found = solve(problem, generator, guide, budget, seed=1)
        first, last = found.history[0], found.history[-1]
        assert (last < 0.7 * first).sum() >= 2, (budget, first, last)
        miss = (found.guide[:, PROPERTIES.index("gap")] - 5).abs() / RESOLUTION["gap"]
        torch.testing.assert_close(miss, last, atol=0.05, rtol=0.01)


def test_the_atlas_knows_what_its_source_points_become(generator):
    guide, atlas = Predictor.load("guide", "cpu"), Atlas.beside(generator)
    assert atlas is not None and len(set(atlas.smiles)) == len(atlas) > 20_000
    places = np.random.default_rng(0).choice(len(atlas), 16, replace=False)
    places = places[atlas.sizes[places].argsort()]
    space = generator.space(atlas.sizes[places])
    flow = generator.flow(space, steps=STEPS, power=POWER)
    end = flow(space.numbered_noise(torch.from_numpy(atlas.numbers[places])), torch.arange(16))
    made = decode(end, space.mask, generator.vocabulary)
    same = [m.smiles == atlas.smiles[place] for m, place in zip(unbatch(made), places, strict=True)]
    assert sum(same) >= 14  # what rounding, which differs between machines, may tip over
    miss = (guide.predict(made) - torch.from_numpy(atlas.readings[places]))[torch.tensor(same)].abs()
    assert (miss.median(0).values < torch.tensor([2 * RESOLUTION[name] for name in PROPERTIES])).all()


def test_a_wanted_property_is_looked_up_and_reached(generator):
    guide, wanted = Predictor.load("guide", "cpu"), torch.linspace(4.0, 7.0, 6)[:, None]
    found = solve(Problem(("gap",), wanted, wanted, np.full(6, 18)), generator, guide,
                  Budget(lookups=1, generations=0, gradients=0), atlas=Atlas.beside(generator))
    miss = (found.guide[:, PROPERTIES.index("gap")] - wanted[:, 0]).abs()
    assert (found.nfe == STEPS).all() and miss.median() < RESOLUTION["gap"]


def test_weights_of_another_shape_are_refused(tiny_weights, generator):
    with pytest.raises(WeightsError, match="does not fit"):
        fill(generator.network.__class__(generator.vocabulary, generator.network.config), tiny_weights["generator"])


def test_the_prior_of_digits_cleans_and_completes_strokes() -> None:
    """Drawn here, not taken from the data. Noise, cut off where the scale ends, costs 6 dB less once restored, a
    missing band 10 dB less."""
    drawn = []
    for corners in ([(8, 7), (20, 7), (12, 22)], [(14, 5), (14, 23)], [(8, 6), (8, 14), (17, 14), (17, 6), (17, 23)]):
        page = np.zeros((28, 28), np.uint8)
        cv2.polylines(page, [np.array(corners, np.int32)], False, 255, 2, cv2.LINE_AA)
        drawn.append(page)
    clean = torch.from_numpy(np.stack(drawn))[:, None].float() / 127.5 - 1
    noisy = clean + 0.4 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    band = torch.ones(1, 1, 28, 28, dtype=torch.bool)
    band[..., 10:15, :] = False
    adapter = image.prior("digits")

    def errors(made: Tensor) -> Tensor:
        return (made.clamp(-1, 1) - clean).square().mean((1, 2, 3))

    denoised = average(adapter, Identity(), noisy, noise=0.4).signal
    assert (errors(denoised) < errors(noisy) / 4).all()
    completed = torch.where(band, clean, average(adapter, Masked(band), clean * band, noise=0.02).signal)
    assert (errors(completed) < errors(torch.where(band, clean, -1.0)) / 10).all()
