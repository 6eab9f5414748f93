from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from molflow.flow.state import State
from molflow.molecules.elements import QM9
from molflow.molecules.state import MoleculeSpace
from molflow.training.pairing import kabsch, pair

SIZES = torch.tensor([4, 9, 6, 2])
MASK = torch.arange(9) < SIZES[:, None]


def states(seed: int = 0) -> tuple[State, State]:
    space = MoleculeSpace(MASK, QM9)
    noise, data = (space.noise(torch.Generator().manual_seed(seed + k)) for k in (0, 1))
    return noise, {**data, "positions": 2 * data["positions"]}


def cost(x: Tensor, data: State) -> Tensor:
    return (x - data["positions"]).square().sum((1, 2))


@given(st.integers(0, 10**6), st.integers(3, 8))
@settings(max_examples=25)
def test_kabsch_is_as_good_as_scipy_with_and_without_reflection(seed: int, n: int) -> None:
    g = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(2, n, 3, generator=g, dtype=torch.float64) for _ in range(2))
    source, target = source - source.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
    r = kabsch(source, target)
    torch.testing.assert_close(r @ r.transpose(1, 2), torch.eye(3).double().expand(2, 3, 3), rtol=0, atol=1e-9)
    ours = (source @ r.transpose(1, 2) - target).norm(dim=(1, 2))
    for b in range(2):
        best = min(Rotation.align_vectors(target[b], sign * source[b])[1] for sign in (1, -1))
        assert ours[b].item() == pytest.approx(best, abs=1e-6)


def test_kabsch_undoes_a_rotoreflection_exactly() -> None:
    x = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = -torch.from_numpy(Rotation.random(rng=0).as_matrix())
    torch.testing.assert_close(kabsch(x, x @ q.T)[0], q, rtol=0, atol=1e-9)


@given(st.integers(0, 10**6))
@settings(max_examples=15)
def test_pairing_lowers_the_transport_cost_of_every_molecule(seed: int) -> None:
    noise, data = states(seed)
    once, twice = (pair(noise["positions"], data["positions"], SIZES, rounds) for rounds in (1, 2))
    before = cost(noise["positions"], data)
    assert (cost(once, data) <= before + 1e-4).all() and (cost(twice, data) <= cost(once, data) + 1e-4).all()
    assert cost(twice, data).sum() < 0.8 * before.sum()


def test_pairing_only_permutes_atoms_and_turns_positions() -> None:
    noise, target = (state["positions"] for state in states())
    kept = noise.clone()
    paired = pair(noise, target, SIZES)
    assert torch.equal(noise, kept), "changed in place"
    assert paired[~MASK].abs().max() == 0
    for b, n in enumerate(SIZES.tolist()):
        a, z = noise[b, :n].double(), paired[b, :n].double()
        assert (a - z).abs().max() > 1e-2
        # some permutation makes the Gram matrices equal: match atoms by their lengths, which are all different
        a, z = a[a.norm(dim=1).argsort()], z[z.norm(dim=1).argsort()]
        torch.testing.assert_close(a @ a.T, z @ z.T, rtol=0, atol=1e-5)


def test_assignment_is_the_best_of_all_permutations() -> None:
    """Exact for the given orientation: against brute force, for the molecule of four atoms."""
    noise, targets = (state["positions"] for state in states(5))
    x, target = noise[0, :4], targets[0, :4]
    best = min((x[list(order)] - target).square().sum().item() for order in permutations(range(4)))
    ours = pair(noise, targets, SIZES, rounds=1)[0, :4]
    assert (ours - target).square().sum().item() == pytest.approx(best, rel=1e-5)
    final = pair(noise, targets, SIZES)[0, :4]  # and no swap improves on the last round
    least = min((final[list(order)] - target).square().sum().item() for order in permutations(range(4)))
    assert (final - target).square().sum().item() == pytest.approx(least, rel=1e-5)


def test_a_turned_and_shuffled_copy_of_the_data_is_found_when_nearly_in_place() -> None:
    target = states(2)[1]["positions"]
    q = torch.from_numpy(Rotation.from_rotvec([0.05, -0.04, 0.03]).as_matrix()).float()
    x = target @ q.T
    x = torch.stack([torch.cat([x[b, :n].flip(0), x[b, n:]]) for b, n in enumerate(SIZES.tolist())])
    torch.testing.assert_close(pair(x, target, SIZES), target, rtol=0, atol=1e-4)
