"""The design loop with untrained networks: what it must do does not depend on how good they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from molflow.designer import NothingFound, choose_sizes, design, sample
from molflow.models import DeviceError, Generator, Predictor
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import collate
from molflow.molecules.io import read_sdf
from molflow.molecules.labels import XTB
from molflow.molecules.stability import is_whole
from molflow.nn.property import PROPERTIES, READ, RESOLUTION
from molflow.search import POWER, Budget, Problem, solve
from molflow.targets import Goal, TargetError

SMALL = Budget(draws=3, generations=1, children=2, gradients=1, trials=1, steps=3)
REAL = Path(__file__).parent / "molecules" / "qm9_sample.sdf"


DRAWN = dataclasses.replace(SMALL, generations=0, gradients=0)


def problem(values: torch.Tensor, sizes: np.ndarray) -> Problem:
    return Problem(("gap",), values, values, sizes)


def run(weights: dict[str, Path], **changes):
    arguments = {"targets": {"gap": 5.0}, "n": 3, "seed": 1, "budget": SMALL, "device": "cpu", **weights, **changes}
    return design(arguments.pop("targets"), **arguments)


def same(a, b) -> bool:
    return all(np.array_equal(x.positions, y.positions) and np.array_equal(x.numbers, y.numbers)
               and np.array_equal(x.bonds, y.bonds) for x, y in zip(a.molecules, b.molecules, strict=True))


def test_same_seed_same_molecules_other_seed_others(tiny_weights):
    first, again, other = (run(tiny_weights, seed=s) for s in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_predictions_belong_to_the_decoded_molecules(tiny_weights):
    made = run(tiny_weights, targets={"gap": 5.0, "mu": "1 D"}, n=4)
    for role in ("guide", "evaluator"):
        said = Predictor.load(tiny_weights[role], "cpu").predict(collate(made.molecules))
        for molecule, row in zip(made.molecules, said, strict=True):
            for name, value in zip(PROPERTIES, row.tolist(), strict=True):
                assert molecule.properties[f"{role}_{name}"] == pytest.approx(value, rel=1e-3, abs=1e-3)
    assert made.targets == {"gap": Goal(5.0, 5.0), "mu": Goal(1.0, 1.0)}
    assert list(made.table["target_mu"]) == [1.0] * 4


def test_every_molecule_has_the_size_asked_for(tiny_weights):
    assert {len(m.numbers) for m in run(tiny_weights, atoms=8).molecules} == {8}
    assert {len(m.numbers) for m in sample(3, atoms=5, steps=2, generator=tiny_weights["generator"])} == {5}


def test_problems_are_independent_of_their_order(tiny_weights):
    """Draws go by the sorted problems, so a permuted problem list gives the permuted answer."""
    generator, guide = (Generator.load(tiny_weights["generator"], "cpu"), Predictor.load(tiny_weights["guide"], "cpu"))
    values, sizes = torch.tensor([[1.0], [2.0], [3.0]]), np.array([5, 8, 9])
    order = [2, 0, 1]
    straight = solve(problem(values, sizes), generator, guide, DRAWN, seed=3)
    turned = solve(problem(values[order], sizes[order]), generator, guide, DRAWN, seed=3)
    assert torch.equal(straight.batch.numbers[order], turned.batch.numbers)
    assert torch.allclose(straight.guide[order], turned.guide, atol=1e-4)


def test_the_trajectory_goes_from_noise_to_the_best_molecule(tiny_weights):
    made = run(tiny_weights, n=5)
    number = {frame.properties["molecule"] for frame in made.trajectory}
    assert [frame.properties["t"] for frame in made.trajectory] == pytest.approx(
        [1 - (1 - s) ** POWER for s in (0, 1 / 3, 2 / 3, 1)], abs=1e-6)
    best = made.molecules[int(number.pop()) - 1]
    assert not number and (best is made.molecules[int(made.history[-1].argmin())])
    end = made.trajectory[-1]
    np.testing.assert_allclose(end.positions, best.positions, atol=1e-3)
    assert (end.numbers == best.numbers).all() and (end.bonds == best.bonds).all()


def test_each_source_leads_to_its_molecule(tiny_weights):
    """Whatever the order, the size and the part of the batch in which it was found."""
    generator, guide = (Generator.load(tiny_weights["generator"], "cpu"), Predictor.load(tiny_weights["guide"], "cpu"))
    sizes = np.array([9, 5, 8, 9, 5])
    found = solve(problem(torch.full((5, 1), 5.0), sizes), generator, guide, SMALL, chunk=2)
    for i, (source, size) in enumerate(zip(found.sources, sizes, strict=True)):
        assert source["positions"].shape == (1, size, 3) and source["bonds"].shape[1:3] == (size, size)
        end = generator.trajectory(source, steps=SMALL.steps, power=POWER)[-1]
        assert torch.equal(end.numbers[0], found.batch.numbers[i, :size])
        assert torch.allclose(end.positions[0], found.batch.positions[i, :size], atol=1e-3)


def test_nfe_is_what_was_spent_and_within_the_budget(tiny_weights):
    generator, guide = (Generator.load(tiny_weights["generator"], "cpu"), Predictor.load(tiny_weights["guide"], "cpu"))
    wanted = problem(torch.full((4, 1), 5.0), np.array([5, 8, 9, 9]))
    calls = 0
    network = generator.network.forward

    def counting(t, *rest):
        nonlocal calls
        calls += len(t)
        return network(t, *rest)

    generator.network.forward = counting  # counts, then does the real thing
    found = solve(wanted, generator, guide, dataclasses.replace(DRAWN, draws=5))
    assert calls == int(found.nfe.sum()) == 4 * 5 * 3
    found = solve(wanted, generator, guide, SMALL)
    assert (found.nfe <= SMALL.nfe(1, atlas=False)).all() and (found.nfe >= 3 * 3).all()
    calls = 0
    found = solve(wanted, generator, guide, dataclasses.replace(SMALL, gradients=0))
    assert calls == int(found.nfe.sum())


def test_history_never_rises(tiny_weights):
    history = run(tiny_weights, n=4).history
    assert (history[1:] <= history[:-1]).all()


def test_real_molecules_are_whole_and_damaged_ones_are_not():
    molecules, _ = read_sdf(REAL)
    batch = collate(molecules)
    assert is_whole(batch).all()
    without = MoleculeBatch(batch.positions, batch.numbers, batch.charges, torch.zeros_like(batch.bonds))
    assert not is_whole(without).any()


def test_an_ion_is_not_whole():
    """Ammonium's valences are all filled, but the molecules of QM9 are neutral, and so are the guides' answers."""
    bonds = torch.zeros(1, 5, 5, dtype=torch.int64)
    bonds[0, 0, 1:] = bonds[0, 1:, 0] = 1
    numbers, charges = torch.tensor([[7, 1, 1, 1, 1]]), torch.tensor([[1, 0, 0, 0, 0]])
    assert not is_whole(MoleculeBatch(torch.randn(1, 5, 3), numbers, charges, bonds)).any()
    numbers[0, 0], charges[0, 0] = 6, 0
    assert is_whole(MoleculeBatch(torch.randn(1, 5, 3), numbers, charges, bonds)).all()


def test_what_does_not_meet_a_condition_is_never_returned(tiny_weights):
    """Untrained networks make no molecule of a given formula: that is said, and nothing is passed off as one."""
    with pytest.raises(NothingFound, match="3 of the 3 molecules do not meet"):
        run(tiny_weights, formula="C2H6")


@pytest.mark.parametrize(("changes", "word"), [
    ({"n": 0}, "at least 1"), ({"n": -4}, "at least 1"), ({"atoms": 500}, "5 to 9"), ({"atoms": 1}, "5 to 9"),
    ({"targets": {"colour": 1}}, "colour"), ({"formula": "C2H7"}, "unpaired"),
    ({"formula": "CH4", "atoms": 6}, "5 atoms"),
    ({"formula": "C60"}, "5 to 9"), ({"targets": {"gap": 9, "homo": 0, "lumo": 1}}, "contradicts"),
    ({"targets": {"gap": "5 D"}}, "unit"), ({"targets": {}}, "target"),
])
def test_bad_input_is_one_sentence(tiny_weights, changes, word):
    with pytest.raises(TargetError, match=word) as error:
        run(tiny_weights, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_asked_for_and_missing(tiny_weights):
    with pytest.raises(DeviceError, match="CUDA"):
        run(tiny_weights, device="cuda")


def test_a_target_never_seen_is_a_warning_not_an_error(tiny_weights):
    made = run(tiny_weights, targets={"gap": 40.0}, n=1)
    assert len(made.warnings) == 1 and "-10.00 to 10.00" in made.warnings[0]
    assert not run(tiny_weights, n=1).warnings


def test_sizes_follow_the_data(tiny_weights):
    generator = Generator.load(tiny_weights["generator"], "cpu")
    drawn = choose_sizes(generator, 6000, 0, None)
    assert np.bincount(drawn)[[5, 8, 9]] / 6000 == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.03)


def test_resolution_covers_every_property():
    assert set(RESOLUTION) == {*XTB, *(name for names in READ.values() for name in names)}
