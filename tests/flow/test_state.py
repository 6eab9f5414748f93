import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molflow.flow.state import EuclideanSpace, add, batch_size, per_sample, select

B = 3
SHAPES = {"a": (4, 2), "b": (5,)}


def space(seed: int = 0) -> EuclideanSpace:
    g = torch.Generator().manual_seed(seed)
    masks = {"a": torch.rand(B, 4, 1, generator=g) < 0.6}
    return EuclideanSpace(SHAPES, masks, B, dtype=torch.float64)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_unpack_undoes_pack_and_packing_is_an_isometry(seed: int) -> None:
    s = space(seed)
    state = s.noise(torch.Generator().manual_seed(seed))
    flat = s.pack(state)
    assert flat.shape == (B, 13)
    back = s.unpack(flat)
    assert all(torch.equal(back[k], state[k]) for k in SHAPES)
    norm = sum(x.reshape(B, -1).square().sum(1) for x in state.values())
    torch.testing.assert_close(flat.square().sum(1), norm)


def test_unpack_projects_and_pack_drops_what_stands_in_masked_entries() -> None:
    s = space()
    once = s.unpack(torch.randn(B, 13, dtype=torch.float64))
    twice = s.unpack(s.pack(once))
    assert all(torch.equal(once[k], twice[k]) for k in SHAPES)
    free = s.masks["a"]
    dirty = {"a": torch.where(free, 1.0, torch.nan).double(), "b": torch.ones(B, 5, dtype=torch.float64)}
    assert s.pack(dirty).isfinite().all()
    assert (s.unpack(s.pack(dirty))["a"][~free] == 0).all()


def test_gradients_do_not_reach_masked_coordinates() -> None:
    s = space()
    flat = torch.randn(B, 13, dtype=torch.float64, requires_grad=True)
    sum(x.sum() for x in s.unpack(flat).values()).backward()
    ones = {k: torch.ones(B, *shape, dtype=torch.float64) for k, shape in SHAPES.items()}
    assert torch.equal(flat.grad, s.pack(ones))


def test_groups_name_columns_and_degrees_of_freedom() -> None:
    s = space()
    groups = s.groups()
    assert list(groups) == ["a", "b"]
    assert groups["a"][0] == slice(0, 8) and groups["b"][0] == slice(8, 13)
    assert torch.equal(groups["a"][1], s.masks["a"].reshape(B, -1).sum(1))
    assert groups["b"][1].tolist() == [5] * B


def test_noise_is_standard_and_reproducible() -> None:
    s = EuclideanSpace({"a": (20000,)}, {"a": torch.arange(20000) % 2 == 0}, 2, dtype=torch.float64)
    x = s.noise(torch.Generator().manual_seed(0))["a"]
    assert torch.equal(x, s.noise(torch.Generator().manual_seed(0))["a"])
    assert (x[:, 1::2] == 0).all()
    assert abs(x[:, ::2].mean()) < 0.03 and abs(x[:, ::2].var() - 1) < 0.05


def test_select_repeats_and_reorders() -> None:
    s, index = space(), torch.tensor([2, 0, 0, 1])
    picked = s.select(index)
    assert picked.batch == 4
    state = s.noise(None)
    assert torch.equal(picked.pack(select(state, index)), s.pack(state)[index])
    for key, (columns, freedom) in s.groups().items():
        assert picked.groups()[key][0] == columns
        assert torch.equal(picked.groups()[key][1], freedom[index])


def test_a_shared_mask_is_broadcast_and_a_wrong_one_refused() -> None:
    shared = EuclideanSpace({"b": (5,)}, {"b": torch.tensor([1, 1, 0, 0, 1])}, B)
    assert shared.groups()["b"][1].tolist() == [3] * B
    with pytest.raises(RuntimeError):
        EuclideanSpace({"b": (5,)}, {"b": torch.ones(4)}, B)
    with pytest.raises(KeyError):
        EuclideanSpace({"b": (5,)}, {"c": torch.ones(5)}, B)


def test_state_arithmetic() -> None:
    x = {"a": torch.ones(2, 3), "b": torch.zeros(2)}
    v = {"a": torch.ones(2, 3), "b": torch.ones(2)}
    assert torch.equal(add(x, v, -2.0)["a"], -torch.ones(2, 3))
    assert torch.equal(add(x, v, 0.5)["b"], torch.full((2,), 0.5))
    assert per_sample(torch.arange(2), x["a"]).shape == (2, 1)
    assert per_sample(torch.tensor(math.pi), x["a"]).shape == (1, 1)
    assert batch_size(x) == 2
    with pytest.raises(ValueError):
        batch_size({"a": torch.ones(2), "b": torch.ones(3)})
    with pytest.raises(ValueError):
        batch_size({})
