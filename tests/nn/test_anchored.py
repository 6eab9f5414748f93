"""Atoms held in a fragment's place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from molflow.models import Generator
from molflow.molecules.rigid import deviation
from molflow.nn.anchored import Anchor
from molflow.search import POWER

B, N, K = 5, 9, 4
RNG = np.random.default_rng(0)
SHAPE = RNG.normal(0, 1.5, (K, 3))
ATOMS = torch.tensor(np.stack([RNG.permutation(5)[:K] for _ in range(B)]))
ONE = torch.zeros(K, dtype=torch.int64)
ANCHOR = Anchor(ATOMS, torch.from_numpy(SHAPE), ONE)


def test_the_fragment_is_laid_as_scipy_lays_it_and_nothing_else_moves():
    there = torch.from_numpy(RNG.normal(0, 1.5, (B, N, 3)))
    put = ANCHOR.put(there)
    for b in range(B):
        own, aim = SHAPE - SHAPE.mean(0), there[b, ATOMS[b]].numpy()
        turn, _ = Rotation.align_vectors(aim - aim.mean(0), own)
        np.testing.assert_allclose(put[b, ATOMS[b]], turn.apply(own) + aim.mean(0), atol=1e-10)
        farthest = np.linalg.norm(turn.apply(own) + aim.mean(0) - aim, axis=1).max()
        assert float(ANCHOR.deviation(there)[b]) == pytest.approx(farthest)
    rest = torch.ones(B, N, dtype=torch.bool).scatter(1, ATOMS, False)
    assert torch.equal(put[rest], there[rest]) and (ANCHOR.deviation(put) < 1e-9).all()


def test_bodies_are_laid_each_for_itself():
    there = torch.from_numpy(RNG.normal(0, 1.5, (B, N, 3)))
    put = Anchor(ATOMS, torch.from_numpy(SHAPE), torch.tensor([0, 1, 0, 1])).put(there)
    for mine in ([0, 2], [1, 3]):
        alone = Anchor(ATOMS[:, mine], torch.from_numpy(SHAPE[mine]), ONE[:2])
        each = ATOMS[:, mine, None].expand(-1, -1, 3)
        torch.testing.assert_close(put.gather(1, each), alone.put(there).gather(1, each))
    assert (ANCHOR.deviation(put) > 0.1).any()


def test_a_mirror_image_is_another_shape():
    corner = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1.3, 0], [0, 0, 1.6]])
    turned = Rotation.from_rotvec([1, 2, 3]).apply(corner) + 5

    def off(other: np.ndarray, count: int = K) -> float:
        return float(deviation(ONE[:count], torch.from_numpy(corner[:count]), torch.from_numpy(other[None, :count]))[0])

    assert off(turned) < 1e-9 and off(turned * [1, 1, -1]) > 0.3
    assert off(turned[1:], 1) == 0 and off(turned, 2) < 1e-9
    assert 0.1 < off(corner + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.4]])) < 0.4


def test_every_flow_ends_with_the_fragment_in_its_place_and_turns_with_its_source(tiny_weights):
    generator = Generator.load(tiny_weights["generator"], "cpu")
    generator.network.double()
    space = generator.space(np.array([5, 5, 8, 9, 9]))
    source = {key: value.double() for key, value in space.noise(torch.Generator().manual_seed(0)).items()}
    flow = generator.flow(space, steps=6, power=POWER, anchor=ANCHOR)
    end = flow(source, torch.arange(B))
    assert (ANCHOR.deviation(end["positions"]) < 1e-9).all()
    some = torch.tensor([3, 1])
    alone = flow({key: value[some] for key, value in source.items()}, some)
    torch.testing.assert_close(alone["positions"], end["positions"][some])
    turn = torch.from_numpy(Rotation.from_rotvec([0.4, 1.1, -0.7]).as_matrix())
    turned = flow({**source, "positions": source["positions"] @ turn.T}, torch.arange(B))
    torch.testing.assert_close(turned["positions"], end["positions"] @ turn.T, atol=1e-9, rtol=0)
    free = generator.flow(space, steps=6, power=POWER)(source, torch.arange(B))
    assert (ANCHOR.deviation(free["positions"]) > 0.1).any()
