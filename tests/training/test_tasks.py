"""The two real tasks on a small data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from molflow.data.store import MoleculeStore
from molflow.molecules.batch import pair_mask
from molflow.molecules.elements import QM9
from molflow.molecules.state import MoleculeSpace, encode
from molflow.nn.property import PROPERTIES, PropertyConfig
from molflow.nn.velocity import VelocityConfig
from molflow.training.config import GeneratorConfig, PropertyTraining, Run
from molflow.training.generator import GeneratorTask
from molflow.training.properties import PropertyTask, mean_errors
from molflow.training.trainer import train

CPU = torch.device("cpu")
RUN = Run(part="half_b", molecules=8 * 30, batch_size=8, rate=3e-3, rate_matrix=5e-3, warmup=0.1, cooldown=0.3,
          ema=0.9, precision="float32", compile=False)
GENERATOR = GeneratorConfig(run=RUN, network=VelocityConfig(2, 32, 8, 8, 16, 4, 8))
PROPERTY = PropertyTraining(run=replace(RUN, rate=1e-2), network=PropertyConfig(2, 32, 8, 8, 6))


def same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture
def generator(store: MoleculeStore, small_split) -> GeneratorTask:
    return GeneratorTask(GENERATOR, store)


@pytest.fixture
def guide(store: MoleculeStore, small_split) -> PropertyTask:
    return PropertyTask(PROPERTY, store)


# --- generator -------------------------------------------------------------------------------------------------


def test_generator_batches_are_a_pure_function_of_the_step(generator, store, small_split) -> None:
    other = GeneratorTask(GENERATOR, store)
    assert same(generator.batch(5), other.batch(5)) and same(generator.batch(5), generator.batch(5))
    assert not same(generator.batch(5), generator.batch(6))
    reseeded = GeneratorTask(replace(GENERATOR, run=replace(RUN, seed=1)), store)
    assert not same(generator.batch(5), reseeded.batch(5))


def test_generator_sees_only_its_part_and_only_molecules_with_bonds(store, small_split) -> None:
    for part in ("half_a", "half_b", "train"):
        task = GeneratorTask(replace(GENERATOR, run=replace(RUN, part=part)), store)
        wanted = {m for m in small_split[part].tolist() if m != 7}
        assert set(task.buckets.members.tolist()) == wanted
        assert set(task.held_out.members.tolist()) == set(small_split["valid"].tolist())
        assert torch.equal(task.buckets.sizes, store.sizes[task.buckets.members])


def test_generator_batch_is_noise_data_and_times_in_range(generator) -> None:
    times, alone = [], []
    for step in range(60):
        batch = generator.batch(step)
        times.append(batch["t"])
        alone.append(batch["alone"])
        mask = batch["mask"]
        for state in generator.ends(batch):
            assert state["positions"].sum(1).abs().max() < 1e-3
            assert state["positions"][~mask].abs().sum() == 0 and state["bonds"][~pair_mask(mask)].abs().sum() == 0
    t = torch.cat(times)
    assert t.min() >= 0 and t.max() < 1
    assert t.mean().item() == pytest.approx(0.6, abs=0.05)  # of the density 1.5 sqrt(t); 480 draws, sd 0.26
    assert 0.25 < sum(alone) / 60 < 0.75  # self_condition = 0.5


def test_generator_data_are_the_molecules_themselves(generator, store) -> None:
    for step in (0, 3):
        molecules = store.batch(generator.buckets[step])
        batch = generator.batch(step)
        _, data = generator.ends(batch)
        assert same(data, encode(molecules, QM9))
        assert torch.equal(batch["mask"], molecules.mask)
        # sent as one byte a class: a tenth of what the one-hot states take
        assert {batch[key].dtype for key in ("types", "charges", "bonds")} == {torch.int8}


def test_generator_noise_is_standard_in_its_space_and_drawn_by_the_batchs_seed(generator) -> None:
    sums = torch.zeros(4, 2)
    for step in range(60):
        batch = generator.batch(step)
        noise, _ = generator.ends(batch)
        assert same(noise, generator.ends(batch)[0])
        assert torch.equal(noise["positions"], batch["noise_positions"])
        space = MoleculeSpace(batch["mask"], QM9)
        flat, groups = space.pack(noise), space.groups()
        for k, (columns, freedom) in enumerate(groups[key] for key in noise):
            sums[k, 0] += flat[:, columns].square().sum()
            sums[k, 1] += freedom.sum()
    # variance 1 on every free degree of freedom: some 20,000 of the positions, more of the others
    torch.testing.assert_close(sums[:, 0] / sums[:, 1], torch.ones(4), rtol=0, atol=0.03)
    assert not same(generator.ends(generator.batch(0))[0]["types"], generator.ends(generator.batch(20))[0]["types"])


def test_generator_refuses_what_the_vocabulary_lacks(store, small_split) -> None:
    numbers = torch.where(store.numbers == 8, 16, store.numbers)  # sulphur for oxygen
    task = GeneratorTask(GENERATOR, replace(store, numbers=numbers))
    with pytest.raises(ValueError, match=r"16 is not one of \(1, 6, 7, 8, 9\)"):
        [task.batch(step) for step in range(2)]


def test_generator_loss_is_finite_knows_its_parts_and_reaches_every_weight(generator) -> None:
    total = {}
    for alone in (True, False):
        loss, parts = generator.loss(generator.network, {**generator.batch(0), "alone": alone})
        c = GENERATOR
        assert loss.isfinite() and set(parts) == {"positions", "types", "charges", "bonds"}
        expected = (parts["positions"] + c.weight_types * parts["types"] + c.weight_charges * parts["charges"]
                    + c.weight_bonds * parts["bonds"])
        torch.testing.assert_close(loss, expected)
        total[alone] = loss
    assert total[True] != total[False]
    total[False].backward()
    idle = [name for name, p in generator.network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []


def test_generator_loss_of_a_perfect_answer_is_zero(generator) -> None:
    """A network that knows the data: what is learned is the molecule, not something beside it."""
    from molflow.nn.velocity import Prediction

    batch = {**generator.batch(0), "alone": True}
    noise, data = generator.ends(batch)

    def oracle(t, state, mask, previous):
        return Prediction(data["positions"] - noise["positions"],
                          *(50 * data[key] for key in ("types", "charges", "bonds")))

    loss, _ = generator.loss(oracle, batch)
    assert loss.item() < 1e-6
    said = oracle(batch["t"], None, batch["mask"], None)
    state = {k: noise[k] + batch["t"].view(-1, *[1] * (v.dim() - 1)) * (v - noise[k])
             for k, v in data.items()}
    endpoint = said.endpoint(batch["t"], state, batch["mask"])
    torch.testing.assert_close(endpoint["positions"], data["positions"], rtol=0, atol=1e-5)


def test_generator_really_learns_and_a_resumed_run_is_the_same(generator, store, small_split, tmp_path: Path) -> None:
    """Thirty steps on twenty molecules; then again, stopped after the first and resumed."""
    before = generator.validate(generator.network, CPU)
    figures = train(generator, tmp_path / "a", accelerator="cpu")
    assert set(figures) == {"loss", "positions", "types", "charges", "bonds"}
    assert figures["loss"] < 0.8 * before["loss"]
    assert figures["bonds"] < 0.6 * before["bonds"]
    train(GeneratorTask(GENERATOR, store), tmp_path / "b", accelerator="cpu", stop_after=0)
    assert train(GeneratorTask(GENERATOR, store), tmp_path / "b", accelerator="cpu", resume=True) == figures
    a, b = (torch.load(tmp_path / k / "state.ckpt", weights_only=True) for k in "ab")
    assert same(a["network"], b["network"]) and same(a["ema"], b["ema"]) and a["step"] == b["step"] == 30


def test_generator_validation_is_the_same_every_time_and_for_every_seed(generator, store, small_split) -> None:
    first = generator.validate(generator.network, CPU)
    assert generator.validate(generator.network, CPU) == first
    reseeded = GeneratorTask(replace(GENERATOR, run=replace(RUN, seed=1)), store)
    assert reseeded.validate(generator.network, CPU) == first  # else runs of two seeds cannot be compared


def test_generator_trains_in_bfloat16_with_float32_outputs(generator) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = generator.loss(generator.network, generator.batch(1))
    exact, _ = generator.loss(generator.network, generator.batch(1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05) and loss.item() != exact.item()


# --- property networks -----------------------------------------------------------------------------------------


def test_guide_and_evaluator_share_no_molecule(store, small_split) -> None:
    guide, evaluator = (PropertyTask(replace(PROPERTY, run=replace(PROPERTY.run, part=part)), store)
                        for part in ("half_b", "half_a"))
    assert not set(guide.buckets.members.tolist()) & set(evaluator.buckets.members.tolist())
    assert set(guide.buckets.members.tolist()) == set(small_split["half_b"].tolist())
    assert not torch.equal(guide.network.composition, evaluator.network.composition)


def test_property_batches_carry_the_right_targets(guide, store) -> None:
    batch, members = guide.batch(3), guide.buckets[3]
    assert torch.equal(batch["targets"], store.columns(PROPERTIES)[members])
    assert torch.equal(batch["mask"].sum(1), store.sizes[members])
    assert batch["positions"].sum(1).abs().max() < 1e-3
    counts = guide._counts(members)
    torch.testing.assert_close(batch["types"].sum(1), counts)
    assert torch.equal(counts.sum(1).long(), store.sizes[members])
    assert same(batch, guide.batch(3)) and not same(batch, guide.batch(4))


def test_property_loss_is_the_mean_error_over_the_evaluators_error(guide) -> None:
    """By hand: miss each property by twice the error of the field's evaluator for it."""
    field = {"alpha": 0.10, "gap": 0.064, "homo": 0.039, "lumo": 0.036, "mu": 0.043, "cv": 0.040}
    batch = guide.batch(0)

    def off(positions, types, mask):
        return batch["targets"] + 2 * torch.tensor([field[name] for name in PROPERTIES])

    loss, _ = guide.loss(off, batch)
    assert loss.item() == pytest.approx(2.0, rel=1e-4)
    assert guide.loss(lambda *_: batch["targets"], batch)[0].item() == 0


def test_mean_errors_are_means_over_molecules_whatever_the_batches(guide, store) -> None:
    members = torch.arange(40, 61)
    figures = mean_errors(guide.network, guide, members, CPU)
    one_by_one = torch.stack([
        (guide.network(b["positions"], b["types"], b["mask"]) - b["targets"]).abs()[0].detach()
        for b in (guide._batch(m[None]) for m in members)
    ]).mean(0)  # fmt: skip
    assert list(figures) == list(PROPERTIES)
    torch.testing.assert_close(torch.tensor(list(figures.values())), one_by_one, rtol=1e-3, atol=1e-4)


def test_property_network_really_learns(guide, tmp_path: Path) -> None:
    before = [guide.loss(guide.network, guide.batch(step))[0].item() for step in range(2)]
    figures = train(guide, tmp_path, accelerator="cpu")
    after = [guide.loss(guide.network, guide.batch(step))[0].item() for step in range(2)]
    assert sum(after) < 0.7 * sum(before)
    assert set(figures) == set(PROPERTIES) and all(0 < value < 100 for value in figures.values())
