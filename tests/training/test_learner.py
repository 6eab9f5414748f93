"""What becomes of a gradient: clipping, Muon, averaging; and that none of it waits for a GPU."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from molflow.data.store import MoleculeStore
from molflow.molecules.elements import QM9
from molflow.nn.property import PropertyConfig
from molflow.nn.velocity import VelocityConfig, VelocityNetwork
from molflow.training.config import GeneratorConfig, PropertyTraining, Run
from molflow.training.feed import Feed
from molflow.training.generator import GeneratorTask
from molflow.training.learner import Learner, follow, is_hidden, optimisers, tame
from molflow.training.muon import Muon, orthogonalise
from molflow.training.properties import PropertyTask

RUN = Run(molecules=800, batch_size=8, precision="bf16", compile=False)
GENERATOR = GeneratorConfig(run=RUN, network=VelocityConfig(2, 32, 8, 8, 16, 4, 8))
PROPERTY = PropertyTraining(run=RUN, network=PropertyConfig(2, 32, 8, 8, 6))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- Muon ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 32, 5), (4, 6, 40), (1, 1, 9)])
def test_orthogonalise_keeps_singular_vectors_and_brings_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrices = draw(*shape)
    u, s, vt = torch.linalg.svd(matrices, full_matrices=False)
    inside = u.mT @ orthogonalise(matrices) @ vt.mT
    values = inside.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inside, torch.diag_embed(values), rtol=0, atol=1e-3)
    large = s > 0.05 * s[:, :1]
    assert (values[large] > 0.5).all() and (values[large] < 1.5).all()


def test_muon_is_torchs_but_for_the_rounding_of_bfloat16() -> None:
    """Three steps; torch's own iterates in bfloat16, which keeps three digits."""
    settings = {"lr": 0.1, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    shapes = [(6, 10), (12, 4), (6, 10), (1, 7)]
    ours, theirs = ([nn.Parameter(draw(*shape, seed=k)) for k, shape in enumerate(shapes)] for _ in range(2))
    mine, its = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    start = copy.deepcopy(ours)
    for step in range(3):
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad, b.grad = (draw(*a.shape, seed=100 * step + k) for _ in range(2))
        mine.step()
        its.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.02 * (b - before).norm()
    assert mine.state_dict().keys() == its.state_dict().keys()
    for a, b in zip(mine.state_dict()["state"].values(), its.state_dict()["state"].values(), strict=True):
        assert a.keys() == b.keys()
        torch.testing.assert_close(a["momentum_buffer"], b["momentum_buffer"])
    its.load_state_dict(mine.state_dict())


def test_hidden_matrices_go_to_muon_and_every_parameter_to_one_optimiser() -> None:
    network = VelocityNetwork(QM9, VelocityConfig(2, 16, 8, 8, 8, 2, 8))
    adam, muon = optimisers(network, RUN)
    names = {id(p): name for name, p in network.named_parameters()}
    in_muon, in_adam = ([names[id(p)] for group in o.param_groups for p in group["params"]] for o in (muon, adam))
    assert sorted(in_muon + in_adam) == sorted(names.values())
    assert set(in_muon) == {name for name, p in network.named_parameters() if p.ndim == 2 and is_hidden(name)}
    assert "layers.0.mix.0.weight" in in_muon and "layers.0.mix.0.bias" in in_adam and "embed_atom.weight" in in_adam
    assert len(optimisers(nn.Linear(2, 2), RUN)) == 1


# --- clipping and averaging ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_gradients_are_clipped_as_torch_clips_them(scale: float) -> None:
    ours, theirs = ([nn.Parameter(draw(*shape)) for shape in ((3, 4), (5,), (2, 2), ())] for _ in range(2))
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        a.grad, b.grad = (scale * draw(*a.shape, seed=1) for _ in range(2))
    norm = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    torch.testing.assert_close(tame(ours, 1.0), norm)
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert ours[3].grad is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e5])
def test_a_bad_gradient_becomes_none_at_all(bad: float) -> None:
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    params[0].grad, params[1].grad = torch.tensor([1.0, bad, 1.0]), torch.ones(2)
    assert not tame(params, 1.0) < 1e4
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in params)


def test_a_convolution_learns_the_same_however_its_weights_lie_in_memory() -> None:
    """Fused AdamW pairs a weight with the number that lies at the same place of the gradient's memory."""
    plain, turned = (nn.Conv2d(3, 8, 3) for _ in range(2))
    turned.load_state_dict(plain.state_dict())
    turned.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for network in (plain, turned):
        (adam,) = optimisers(network, RUN)
        for step in range(3):
            network(draw(4, 3, 6, 6, seed=step)).square().sum().backward()
            tame(network.parameters(), 1.0)
            adam.step()
            adam.zero_grad()
    torch.testing.assert_close(turned.weight, plain.weight, rtol=1e-4, atol=1e-5)


def test_the_average_starts_as_a_copy_and_its_window_grows() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = AveragedModel(network)
    said = []
    for step, value in ((0, 5.0), (1, 1.0), (2, 1.0), (10**6, 2.0)):
        network.weight.data.fill_(value)
        follow(average, network, step, 0.99)
        said.append(average.module.weight.item())
    second = 5 * 2 / 11 + 1 * 9 / 11
    third = second * 3 / 12 + 1 * 9 / 12
    assert said == pytest.approx([5.0, second, third, 0.99 * third + 0.01 * 2.0])
    assert average.n_averaged == 4


# --- nothing waits for the GPU ---------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Names of the operators that on a GPU would make the processor wait for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        by_mask = name in ("aten::index", "aten::index_put_", "aten::index_put") and any(
            isinstance(x, Tensor) and x.dtype == torch.bool for x in tree_leaves(args[1]))
        if by_mask or name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal",
                               "aten::lift_fresh"):  # the last: a tensor made of Python's numbers, to be copied there
            self.found.add(name)
        return func(*args, **(kwargs or {}))


def test_the_probe_for_waiting_works() -> None:
    x = torch.arange(3.0)
    for work, name in ((lambda: x.sum().item(), "aten::_local_scalar_dense"), (lambda: x[x > 1], "aten::index"),
                       (lambda: bool(x.sum() < 1), "aten::_local_scalar_dense"),
                       (lambda: x.new_tensor([1.0]), "aten::lift_fresh")):
        with Waits() as waits:
            work()
        assert name in waits.found


@pytest.mark.parametrize(("kind", "config"), [(GeneratorTask, GENERATOR), (PropertyTask, PROPERTY)])
def test_a_step_of_training_never_waits(kind: Any, config: Any, store: MoleculeStore, small_split) -> None:
    task = kind(config, store)
    learner = Learner(task, Fabric(accelerator="cpu", devices=1))
    for step, alone in product(range(2), (True, False)):
        batch = {**task.batch(step), "alone": alone}
        with Waits() as waits:
            loss, _ = learner.loss(batch)
            learner.backward(loss)
            learner.update(step, 100)
        assert waits.found == set()


# --- feed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_the_feed_gives_the_batches_asked_for_and_counts_what_they_hold(workers, store, small_split) -> None:
    task = GeneratorTask(replace(GENERATOR, run=replace(RUN, workers=workers)), store)
    feed = Feed(task, Fabric(accelerator="cpu", devices=1), range(3, 9, 2))
    batches = list(feed)
    for step, batch in zip((3, 5, 7), batches, strict=True):
        expected = task.batch(step)
        assert all(torch.equal(batch[k], v) if isinstance(v, Tensor) else batch[k] == v for k, v in expected.items())
    sizes = [store.sizes[task.buckets[step]] for step in (3, 5, 7)]
    figures = feed.figures()
    for key, power in (("padding", 1), ("padding_pairs", 2)):
        filled, places = (sum(int(part) for part in parts) for parts in
                          ([(s**power).sum() for s in sizes], [8 * s.max() ** power for s in sizes]))
        assert figures[key] == pytest.approx(1 - filled / places)
