"""The comparison methods, with untrained networks: what they spend, and that they do what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import qm9_rivals
from benchmarks.record import execute
from benchmarks.rivals import best_of_k, dflow, draws, endpoint_guidance, flowgrad, parts, unguided
from molflow.data.store import MoleculeStore
from molflow.models import Generator, Predictor
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.stability import is_whole
from molflow.nn.property import PROPERTIES
from molflow.search import POWER, Budget, Found, Problem
from molflow.search.problem import STEPS

METHODS = {"unguided": unguided, "best_of_k": best_of_k, "dflow": dflow, "endpoint_guidance": endpoint_guidance,
           "flowgrad": flowgrad}
SIZES = np.array([9, 5, 8])


@pytest.fixture(scope="module")
def networks(tiny_weights: dict[str, Path]) -> tuple[Generator, Predictor]:
    return Generator.load(tiny_weights["generator"], "cpu"), Predictor.load(tiny_weights["guide"], "cpu")


def wanted(*names: str, sizes: np.ndarray = SIZES, any_size: bool = False) -> Problem:
    values = torch.arange(1.0, 1 + len(sizes) * len(names)).view(len(sizes), len(names)) / 4
    return Problem(names, values, values, sizes, any_size)


def miss(found: Found, problem: Problem) -> torch.Tensor:
    return problem.residual(found.guide[:, problem.columns]).norm(dim=1)


class Counted:
    """Wraps a network's forward pass: counts rows forward, and those that a gradient comes back through."""

    def __init__(self, network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forward, self.backward, real = 0, 0, network.forward

        def forward(t, *rest):
            said = real(t, *rest)
            self.forward += len(t)
            if said.velocity.requires_grad:
                said.velocity.register_hook(lambda gradient: self._came_back(len(t)))
            return said

        monkeypatch.setattr(network, "forward", forward)

    def _came_back(self, rows: int) -> None:
        self.backward += rows


@pytest.mark.parametrize(("name", "nfe", "spent"), [
    ("unguided", 150, 10), ("best_of_k", 59, 50), ("endpoint_guidance", 70, 60), ("dflow", 95, 90),
    ("flowgrad", 95, 94),
])
def test_nfe_is_what_was_spent_and_within_the_budget(networks, monkeypatch, name, nfe, spent):
    counted = Counted(networks[0].network, monkeypatch)
    found = METHODS[name].solve(wanted("gap"), *networks, nfe=nfe, seed=1)
    assert (found.nfe <= spent).all() and (name == "dflow" or (found.nfe == spent).all())
    # checkpoints compute each step again for its backward pass, which is not counted
    again = {"dflow": counted.backward, "flowgrad": 3 * 3 * STEPS}.get(name, 0)
    assert counted.forward - again + 2 * counted.backward == int(found.nfe.sum())


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_decides_all_and_each_molecule_has_its_size(networks, name):
    problem = wanted("gap", "mu")
    nfe = 38 if name == "flowgrad" else 30
    first, again, other = (METHODS[name].solve(problem, *networks, nfe=nfe, seed=seed, chunk=2) for seed in (1, 1, 2))
    assert first.batch.sizes.tolist() == SIZES.tolist() and first.guide.shape == (3, len(PROPERTIES))
    assert torch.equal(first.batch.positions, again.batch.positions)
    assert not torch.equal(first.batch.positions, other.batch.positions)
    assert [len(source["positions"][0]) for source in first.sources] == SIZES.tolist()
    whole = is_whole(first.batch)
    torch.testing.assert_close(first.history[-1][whole], miss(first, problem)[whole])
    assert first.history[-1][~whole].isinf().all()


@pytest.mark.parametrize(("name", "least"), [("best_of_k", 10), ("unguided", 10), ("endpoint_guidance", 30),
                                             ("dflow", 30), ("flowgrad", 10)])
def test_too_small_a_budget_is_refused(networks, name, least):
    METHODS[name].solve(wanted("gap"), *networks, nfe=least, seed=0)
    with pytest.raises(ValueError, match="too few"):
        METHODS[name].solve(wanted("gap"), *networks, nfe=least - 1, seed=0)


def test_all_begin_with_the_same_source_points(networks):
    """Without strength, and before the first update, nothing but the unguided flow is left."""
    plain = unguided.solve(wanted("gap"), *networks, nfe=10, seed=4)
    for source, size, found in zip(plain.sources, SIZES, plain.batch.positions, strict=True):
        end = networks[0].trajectory(source, steps=STEPS, power=POWER)[-1]
        torch.testing.assert_close(end.positions[0], found[:size], atol=1e-4, rtol=0)
    for method in (dflow, flowgrad):
        least = 30 if method is dflow else 10
        found = method.solve(wanted("gap"), *networks, nfe=least, seed=4)
        torch.testing.assert_close(found.batch.positions, plain.batch.positions, atol=1e-4, rtol=0)


def test_endpoint_guidance_without_strength_is_the_unguided_flow(networks, monkeypatch):
    plain = unguided.solve(wanted("gap"), *networks, nfe=10, seed=4)
    bent = endpoint_guidance.solve(wanted("gap"), *networks, nfe=30, seed=4)
    assert not torch.allclose(bent.batch.positions, plain.batch.positions, atol=1e-3)
    monkeypatch.setattr(endpoint_guidance, "STRENGTH", 0.0)
    none = endpoint_guidance.solve(wanted("gap"), *networks, nfe=30, seed=4)
    torch.testing.assert_close(none.batch.positions, plain.batch.positions, atol=1e-4, rtol=0)


def soft_loss(networks, method, problem: Problem) -> torch.Tensor:
    """Squared miss of the soft molecules that a method ends with."""
    ends: list[torch.Tensor] = []

    def watched(part: parts.Part):
        end = method(part)
        ends.append(part.loss(end.endpoint, part.index).detach())
        return end

    begin = parts.numbers(3, len(problem))[:, 0]
    parts.in_parts(problem, *networks, watched, begin, chunk=None, progress=None)
    return torch.cat(ends)


def test_flowgrad_lowers_the_loss(networks):
    problem = wanted("gap", "mu")
    losses = [soft_loss(networks, lambda part, k=k: flowgrad.descend(part, k), problem) for k in (0, 3)]
    assert (losses[1] < losses[0]).all()


def test_dflow_finds_a_known_minimum(networks):
    """With the identity for a flow and the square of the types for a reading, the minimum is a sphere."""
    generator, guide = networks
    problem = wanted("gap")

    class Identity(parts.Part):
        def flow(self, gradients: bool = False):
            return lambda x, index: x

        def residual(self, endpoint, index):
            square = endpoint["types"].square().sum((1, 2))[:, None]
            return self.problem[index.numpy()].residual(square)

    space = generator.space(SIZES)
    start = space.numbered_noise(torch.from_numpy(parts.numbers(0, 3)[:, 0]))
    end = dflow.descend(Identity(problem, generator, guide, space, start), 20)
    reached = end.endpoint["types"].square().sum((1, 2))
    torch.testing.assert_close(reached, problem.low[:, 0], atol=1e-2, rtol=0)
    torch.testing.assert_close(end.endpoint["positions"], start["positions"])  # no gradient, no step
    assert (end.nfe <= 600).all()


def test_the_nearest_whole_run_is_taken_and_fewer_runs_are_the_first_of_more(qm9: list[Molecule]):
    """Three runs for each of two problems: methane-like real molecules, one without its bonds."""
    batch = collate([qm9[i] for i in (0, 1, 2, 3, 4, 5)])
    broken = torch.zeros_like(batch.bonds)
    batch = dataclasses.replace(batch, bonds=torch.where((torch.arange(6) == 1)[:, None, None], broken, batch.bonds))
    gap = PROPERTIES.index("gap")
    readings = torch.zeros(6, 6)
    readings[:, gap] = torch.tensor([3.0, 1.0, 2.0, 7.0, 8.0, 5.5])
    problem = Problem(("gap",), torch.tensor([[1.0], [6.0]]), torch.tensor([[1.0], [6.0]]), batch.sizes[[0, 3]].numpy())
    misses = problem[np.repeat([0, 1], 3)].residual(readings[:, [gap]]).norm(dim=1)
    history = torch.where(is_whole(batch), misses, torch.inf)[None]
    pool = Found(batch, readings, torch.zeros(6, 6), is_whole(batch), torch.full((6,), 10), history,
                 [{"row": torch.tensor([i])} for i in range(6)])
    best = draws.nearest(pool, problem, 3)
    assert best.guide[:, gap].tolist() == [2.0, 5.5] and best.nfe.tolist() == [30, 30]
    assert [int(source["row"]) for source in best.sources] == [2, 5]
    fewer = draws.nearest(pool, problem, 2)
    assert fewer.guide[:, gap].tolist() == [3.0, 7.0] and fewer.nfe.tolist() == [20, 20]


def test_a_pool_serves_every_smaller_budget(networks):
    for any_size in (False, True):
        problem = wanted("gap", any_size=any_size)
        pool = draws.runs(problem, *networks, best_of_k.run, 6, seed=2, chunk=None, progress=None)
        few = draws.runs(problem, *networks, best_of_k.run, 2, seed=2, chunk=None, progress=None)
        first = pool.batch[[0, 1, 6, 7, 12, 13]]
        assert torch.equal(first.numbers, few.batch.numbers)
        torch.testing.assert_close(first.positions, few.batch.positions, atol=1e-4, rtol=0)
        sizes = pool.batch.sizes.view(3, 6)
        assert (sizes[:, 0] == torch.tensor(SIZES)).all()
        assert any_size == bool((sizes != sizes[:, :1]).any())


def test_the_benchmark_counts_every_molecule_and_goes_on_where_it_was(weights: Path, qm9, tmp_path, monkeypatch):
    store = MoleculeStore.of(collate(qm9), torch.arange(len(qm9)), "test")
    store = dataclasses.replace(store, properties=torch.rand(len(qm9), len(PROPERTIES)), names=PROPERTIES)
    small = [i for i, molecule in enumerate(qm9) if len(molecule.numbers) <= 9]
    monkeypatch.setattr(qm9_rivals, "needed_qm9", lambda: store)
    monkeypatch.setattr(qm9_rivals, "qm9_split", lambda: {"half_b": np.array(small)})
    monkeypatch.setattr(qm9_rivals, "BUDGETS", (20, 30))
    monkeypatch.setattr(qm9_rivals, "BUDGET", Budget(draws=2, generations=0, gradients=0, steps=2))
    monkeypatch.setattr(qm9_rivals, "OTHERS", {"unguided": (unguided, (20,)), "dflow": (dflow, (30,)),
                                               "flowgrad": (flowgrad, (20, 30))})
    options = {"n": 2, "seed": 1, "weights": weights, "device": "cpu"}
    record = execute("qm9-rivals", qm9_rivals, tmp_path, options)["results"]
    assert list(record["problems"]) == ["one property", "three at once", "tails"]
    for what in record["problems"].values():
        rows = what["methods"]
        assert list(rows) == [name for name in qm9_rivals.LABELS if name != "molflow"]  # no atlas beside these weights
        assert [row["nfe"] for row in rows["best_of_k"]] == [20, 30]
        assert [row["nfe"] for row in rows["endpoint_guidance"]] == [30]
        for row in (row for some in rows.values() for row in some):
            assert row["error"] >= 0 and 0 <= row["valid_hits"] <= row["hits"] <= 1 and row["cpu_seconds"] > 0
    for name in ("nfe", "seconds"):
        assert (tmp_path / f"qm9-rivals.{name}.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(qm9_rivals, "figures", None)  # all is there
    assert execute("qm9-rivals", qm9_rivals, tmp_path, options, resume=True)["results"] == record


def test_figures_by_hand(networks, qm9: list[Molecule]):
    batch = collate(qm9[10:12])
    generator, guide = networks
    said = guide.predict(batch)
    names = ("gap", "mu")
    columns = [PROPERTIES.index(name) for name in names]
    off = torch.tensor([[0.064, 0.043], [4 * 0.064, 0.0]])
    problem = Problem(names, said[:, columns] + off, said[:, columns] + off, batch.sizes.numpy())
    found = Found(batch, said, torch.zeros(2, 6), torch.ones(2, dtype=torch.bool), torch.tensor([10, 30]),
                  torch.zeros(1, 2), [])
    row = qm9_rivals.figures(found, problem, qm9_rivals.Setting(generator, guide, guide, 0), 4.0, 2.0, 30)
    assert row["error"] == pytest.approx((1 + 2) / 2, rel=1e-4) and row["hits"] == row["valid_hits"] == 0.5
    assert row["mae"]["gap"] == pytest.approx(2.5 * 0.064, rel=1e-4)
    assert (row["nfe"], row["seconds"], row["cpu_seconds"], row["valid"], row["unique"]) == (20, 2.0, 1.0, 1, 1)
