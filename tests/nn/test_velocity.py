from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from e3nn import o3
from torch import Tensor

from molflow.flow.path import velocity_to_endpoint
from molflow.molecules.batch import MoleculeBatch, pair_mask
from molflow.molecules.convert import collate
from molflow.molecules.elements import QM9
from molflow.molecules.state import MoleculeSpace
from molflow.nn.velocity import (
    MoleculeField,
    Prediction,
    VectorLinear,
    VectorNorm,
    VelocityConfig,
    VelocityNetwork,
    fourier_time,
    radial_basis,
)

SMALL = VelocityConfig(layers=2, scalars=24, vectors=8, pairs=8, messages=12, heads=4, radial=8)
TIMES = torch.tensor([0.15, 0.4, 0.65, 0.9])
PRECISION = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["float64", "float32"]
)
WEIGHTS = pytest.mark.parametrize("scale", [0.7, 1.5], ids=["usual", "large"])


def parts(said: Prediction) -> dict[str, Tensor]:
    return {field.name: getattr(said, field.name) for field in fields(said)}


def network(randomise, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> VelocityNetwork:
    torch.manual_seed(0)
    return randomise(VelocityNetwork(QM9, SMALL), scale, dtype)


def close(got: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    """Equal to ``tolerance`` of the largest entry, which must not be trivially small."""
    for key, value in wanted.items():
        largest = value.detach().abs().max().item()
        assert largest > 1e-3, f"{key} is trivially zero"
        error = (got[key] - value).detach().abs().max().item()
        assert error <= tolerance * max(1.0, largest), f"{key}: {error:.1e} of {largest:.1e}"


def spread(said: Prediction, mask: Tensor) -> dict[str, Tensor]:
    """All outputs with padding at zero: what stands there means nothing."""
    out, atoms = parts(said), mask[..., None]
    return {key: value * (pair_mask(mask)[..., None] if key == "bonds" else atoms) for key, value in out.items()}


@pytest.fixture
def inputs(four: MoleculeBatch, on_path):
    """(t, state, mask, previous) in a dtype."""

    def build(dtype: torch.dtype):
        state, mask = on_path(four, TIMES, dtype, 0)
        previous, _ = on_path(four, torch.full((4,), 0.97), dtype, 1)
        return TIMES.to(dtype), state, mask, previous

    return build


@PRECISION
@WEIGHTS
@pytest.mark.parametrize("remember", [False, True], ids=["first", "self-conditioned"])
@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "rotoreflection"])
def test_prediction_turns_with_the_molecule(
    inputs, randomise, turn, dtype, tolerance, scale, remember, sign
) -> None:
    net = network(randomise, scale, dtype)
    t, state, mask, previous = inputs(dtype)
    torch.manual_seed(1)
    q, shift = sign * o3.rand_matrix(dtype=torch.float64).to(dtype), torch.tensor([2.0, -1.0, 0.5], dtype=dtype)
    before = spread(net(t, state, mask, previous if remember else None), mask)
    seen = turn(previous, q, shift, mask) if remember else None
    after = spread(net(t, turn(state, q, shift, mask), mask, seen), mask)
    close(after, {**before, "velocity": before["velocity"] @ q.T}, tolerance)


@PRECISION
@WEIGHTS
@pytest.mark.parametrize("remember", [False, True], ids=["first", "self-conditioned"])
def test_prediction_follows_any_order_of_the_atoms(
    inputs, randomise, reorder, orders, dtype, tolerance, scale, remember
) -> None:
    net = network(randomise, scale, dtype)
    t, state, mask, previous = inputs(dtype)
    order = orders(mask)
    before = spread(net(t, state, mask, previous if remember else None), mask)
    seen = reorder(previous, order) if remember else None
    shuffled = mask.gather(1, order)
    after = spread(net(t, reorder(state, order), shuffled, seen), shuffled)
    close(after, reorder(before, order), tolerance)


@PRECISION
@WEIGHTS
def test_a_molecule_alone_and_in_a_batch_of_larger_ones_is_the_same(
    inputs, randomise, dtype, tolerance, scale
) -> None:
    net = network(randomise, scale, dtype)
    t, state, mask, previous = inputs(dtype)
    batched = spread(net(t, state, mask, previous), mask)
    for b, n in enumerate(mask.sum(1).tolist()):
        def alone(s: dict[str, Tensor], b: int = b, n: int = n) -> dict[str, Tensor]:
            return {k: v[b : b + 1, :n, :n] if k == "bonds" else v[b : b + 1, :n] for k, v in s.items()}

        own = mask[b : b + 1, :n]
        close(spread(net(t[b : b + 1], alone(state), own, alone(previous)), own), alone(batched), tolerance)


def test_garbage_in_the_padding_changes_nothing(inputs, randomise) -> None:
    net = network(randomise)
    t, state, mask, previous = inputs(torch.float64)
    clean = spread(net(t, state, mask, previous), mask)
    dirty = {**state, "types": state["types"] + 7.0 * ~mask[..., None]}
    dirty["positions"] = dirty["positions"] + 3.0 * ~mask[..., None]
    dirty["bonds"] = dirty["bonds"] + 5.0 * ~(mask[:, :, None] & mask[:, None])[..., None]
    close(spread(net(t, dirty, mask, previous), mask), clean, 1e-9)


def test_a_single_atom_does_not_see_the_padding(randomise) -> None:
    """Its attention has nobody to look at: then it must gather nothing, however wide the batch."""
    net = network(randomise)
    t = torch.tensor([0.5], dtype=torch.float64)
    spaces = [MoleculeSpace(torch.arange(width)[None] < 1, QM9) for width in (2, 5)]
    narrow = {key: value.double() for key, value in spaces[0].noise(torch.Generator().manual_seed(0)).items()}
    wide = spaces[1].unpack(torch.zeros(1, spaces[1].pack(spaces[1].noise()).shape[1], dtype=torch.float64))
    for key in ("types", "charges"):
        wide[key][:, :1] = narrow[key][:, :1]
    a, b = (net(t, s, space.mask) for s, space in zip((narrow, wide), spaces, strict=True))
    torch.testing.assert_close(a.types[:, :1], b.types[:, :1], rtol=0, atol=1e-9, check_dtype=False)


def test_velocity_moves_no_centre_of_mass(inputs, randomise) -> None:
    net = network(randomise)
    t, state, mask, previous = inputs(torch.float64)
    velocity = net(t, state, mask, previous).velocity
    assert velocity.abs().max() > 0.1
    assert (velocity * mask[..., None]).sum(1).abs().max() < 1e-9 * velocity.abs().max()
    assert velocity[~mask].abs().max() == 0


def test_bonds_are_the_same_from_both_ends(inputs, randomise) -> None:
    t, state, mask, previous = inputs(torch.float64)
    bonds = network(randomise)(t, state, mask, previous).bonds
    assert (bonds[:, 0, 1] - bonds[:, 0, 2]).abs().max() > 1e-3
    torch.testing.assert_close(bonds, bonds.transpose(1, 2), rtol=0, atol=1e-12)


def test_endpoint_is_probabilities_on_real_atoms_and_zero_on_padding(inputs, randomise) -> None:
    t, state, mask, previous = inputs(torch.float64)
    said = network(randomise, 1.5)(t, state, mask, previous)
    endpoint = said.endpoint(t, state, mask)
    pairs = pair_mask(mask)
    for key, real in {"types": mask, "charges": mask, "bonds": pairs}.items():
        p = endpoint[key]
        assert (p >= 0).all() and p.std() > 0
        torch.testing.assert_close(p.sum(-1), real.to(p), rtol=0, atol=1e-6)
    assert endpoint["positions"][~mask].abs().max() == 0
    moved = endpoint["positions"] - state["positions"]
    torch.testing.assert_close(moved, (1 - t)[:, None, None] * said.velocity.double(), rtol=0, atol=1e-9)


def test_what_was_said_before_is_listened_to(inputs, randomise) -> None:
    net = network(randomise)
    t, state, mask, previous = inputs(torch.float64)
    fresh, told = (spread(net(t, state, mask, p), mask) for p in (None, previous))
    for key in fresh:
        assert (fresh[key] - told[key]).abs().max() > 1e-2, key
    for key in previous:  # every part of it
        other = {**previous, key: previous[key].flip(-1) if key != "positions" else 1.1 * previous[key]}
        changed = spread(net(t, state, mask, other), mask)
        assert (changed["types"] - told["types"]).abs().max() > 1e-4, key


def test_zeros_for_memory_mean_none_sample_by_sample(inputs, randomise) -> None:
    net = network(randomise)
    t, state, mask, previous = inputs(torch.float64)
    fresh, told = (parts(net(t, state, mask, p)) for p in (None, previous))
    zeros = {key: torch.zeros_like(value) for key, value in previous.items()}
    for key, value in parts(net(t, state, mask, zeros)).items():
        assert torch.equal(value, fresh[key])
    half = {key: torch.cat([value[:2], zeros[key][2:]]) for key, value in previous.items()}
    for key, value in parts(net(t, state, mask, half)).items():
        torch.testing.assert_close(value[:2], told[key][:2], rtol=0, atol=1e-9)
        torch.testing.assert_close(value[2:], fresh[key][2:], rtol=0, atol=1e-9)


def test_field_points_from_the_state_to_the_endpoint(inputs, randomise) -> None:
    t, state, mask, previous = inputs(torch.float64)
    velocity, memory = MoleculeField(network(randomise), mask)(t, state, previous)
    endpoint = velocity_to_endpoint(velocity, state, t)
    assert set(velocity) == set(memory) == set(state)
    for key in state:
        assert velocity[key].shape == state[key].shape
        torch.testing.assert_close(endpoint[key], memory[key], rtol=0, atol=1e-9, check_dtype=False)


def test_gradients_are_finite_where_atoms_coincide_and_at_both_ends_of_time(four, on_path, randomise) -> None:
    net = network(randomise)
    state, mask = on_path(four, torch.ones(4), torch.float64, 0)
    state["positions"][:, 1] = state["positions"][:, 0]
    state["positions"].requires_grad_()
    for t in (0.0, 1.0):
        time = torch.full((4,), t, dtype=torch.float64)
        said = net(time, state, mask, None)
        total = sum(value.sum() for value in said.endpoint(time, state, mask).values())
        (gradient,) = torch.autograd.grad(total + said.types.square().mean(), state["positions"])
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_every_weight_is_used(inputs, randomise) -> None:
    net = network(randomise)
    t, state, mask, previous = inputs(torch.float64)
    sum((value * torch.randn_like(value)).sum() for value in parts(net(t, state, mask, previous)).values()).backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # the last layer's pair features are read, its attention is; nothing may lie idle
    assert idle == []


@pytest.mark.parametrize(("inputs_", "outputs"), [(5, 7), (8, 1), (1, 4)])
def test_vector_linear_is_e3nn_linear(inputs_: int, outputs: int) -> None:
    torch.manual_seed(0)
    ours = VectorLinear(inputs_, outputs).double()
    theirs = o3.Linear(f"{inputs_}x1o", f"{outputs}x1o").double()
    with torch.no_grad():  # e3nn keeps (in, out) weights of unit variance and divides by sqrt(in) when applied
        theirs.weight.copy_((ours.weight.T * math.sqrt(inputs_)).flatten())
    v = torch.randn(2, 6, 3, inputs_, dtype=torch.float64)
    expected = theirs(v.transpose(-1, -2).flatten(-2)).unflatten(-1, (outputs, 3)).transpose(-1, -2)
    torch.testing.assert_close(ours(v), expected, rtol=0, atol=1e-12)
    assert ours(torch.ones(3, inputs_, dtype=torch.float64)).abs().max() > 0


def test_vector_linear_starts_with_e3nn_s_variance() -> None:
    torch.manual_seed(0)
    out = VectorLinear(64, 512)(torch.randn(50, 3, 64))
    assert out.var().item() == pytest.approx(1.0, rel=0.1)


def test_vector_norm_brings_long_vectors_to_unit_size_and_keeps_directions() -> None:
    torch.manual_seed(0)
    v = 100 * torch.randn(4, 5, 3, 16)
    out = VectorNorm(16)(v)
    torch.testing.assert_close(out.square().sum((-1, -2)) / 16, torch.ones(4, 5), rtol=1e-4, atol=0)
    cosine = (out * v).sum(-2) / (out.norm(dim=-2) * v.norm(dim=-2))
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    assert VectorNorm(16)(torch.zeros(1, 3, 16)).abs().max() == 0


def test_radial_basis_peaks_one_after_the_other() -> None:
    count = 8
    centres = torch.linspace(0, 1, count, dtype=torch.float64)[1:]  # exp(-d/2) = 0 lies at infinity
    values = radial_basis(-2 * centres.log(), count)
    assert values.shape == (count - 1, count)
    torch.testing.assert_close(values[:, 1:].diagonal(), torch.ones(count - 1, dtype=torch.float64))
    assert (values.argmax(1) == torch.arange(1, count)).all()


def test_fourier_time_tells_times_apart_and_matches_its_formula() -> None:
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    out = fourier_time(t, 6)
    expected = [[f(math.pi * x * 2**k) for f in (math.sin, math.cos) for k in range(3)] for x in t.tolist()]
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64))
    grid = fourier_time(torch.linspace(0, 1, 101), 14)
    assert torch.cdist(grid, grid).add(torch.eye(101)).min() > 1e-2


@pytest.mark.parametrize("rows", [1, 5, 18])
def test_a_few_rows_of_pairs_at_a_time_give_the_same_and_its_gradients(inputs, randomise, rows: int) -> None:
    t, state, mask, previous = inputs(torch.float64)
    dense, sparing = network(randomise), network(randomise)
    sparing.rows = rows
    dense_said, sparing_said = (spread(one(t, state, mask, previous), mask) for one in (dense, sparing))
    close(sparing_said, dense_said, 1e-10)
    for said in (dense_said, sparing_said):
        sum(value.square().sum() for value in said.values()).backward()
    wanted = dict(dense.named_parameters())
    for name, parameter in sparing.named_parameters():
        assert torch.allclose(parameter.grad, wanted[name].grad, rtol=1e-8, atol=1e-10), name


def test_a_batch_of_one_width_gives_the_same_as_collate(qm9, randomise, on_path) -> None:
    """The network's answer for a molecule does not depend on who else is in the batch."""
    net = network(randomise)
    t = torch.tensor([0.5, 0.5], dtype=torch.float64)
    a, mask_a = on_path(collate([qm9[40], qm9[41]]), t, torch.float64, 0)
    row = {key: value[:1].clone() for key, value in a.items()}
    first = spread(net(t, a, mask_a), mask_a)
    other = {key: torch.cat([row[key], -a[key][1:]]) for key in a}
    second = spread(net(t, other, mask_a), mask_a)
    close({k: v[:1] for k, v in second.items()}, {k: v[:1] for k, v in first.items()}, 1e-9)
