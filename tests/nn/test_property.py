from __future__ import annotations

import numpy as np
import pytest
import torch
from e3nn import o3
from torch import Tensor

from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.elements import QM9
from molflow.molecules.labels import DRUGLIKE
from molflow.molecules.state import encode
from molflow.nn.property import PROPERTIES, UNITS, PropertyConfig, PropertyNetwork

SMALL = PropertyConfig(layers=2, scalars=16, density=8, vectors=6, tensors=5)
ALPHA, GAP, HOMO, LUMO, MU, CV = range(6)
PRECISION = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["float64", "float32"]
)
WEIGHTS = pytest.mark.parametrize("scale", [0.7, 1.5], ids=["usual", "large"])


def network(randomise, scale: float = 1.0, dtype: torch.dtype = torch.float64, config=SMALL) -> PropertyNetwork:
    torch.manual_seed(0)
    net = PropertyNetwork(len(QM9.elements), config)
    net.composition.copy_(torch.randn(6, 4))
    net.scale.copy_(torch.tensor([2.0, 1.5, 0.5, 0.7]))
    return randomise(net, scale, dtype)


def soft(four: MoleculeBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Real positions and half-decided types."""
    state = encode(four, QM9)
    torch.manual_seed(2)
    types = (3 * state["types"] + torch.randn_like(state["types"])).softmax(-1) * four.mask[..., None]
    return state["positions"].to(dtype), types.to(dtype), four.mask


def close(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert wanted.std(0).min() > 1e-3, "the network says the same of every molecule"
    error = (got - wanted).abs().max().item()
    assert error <= tolerance * max(1.0, wanted.abs().max().item()), error


def test_names_units_and_shape(four, randomise) -> None:
    out = network(randomise)(*soft(four, torch.float64))
    assert out.shape == (4, 6) and out.isfinite().all()
    assert PROPERTIES == ("alpha", "gap", "homo", "lumo", "mu", "cv") and set(UNITS) >= set(PROPERTIES)


@PRECISION
@WEIGHTS
@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "rotoreflection"])
def test_properties_do_not_depend_on_pose(four, randomise, dtype, tolerance, scale, sign) -> None:
    net = network(randomise, scale, dtype)
    positions, types, mask = soft(four, dtype)
    torch.manual_seed(1)
    q = sign * o3.rand_matrix(dtype=torch.float64).to(dtype)
    moved = positions @ q.T + torch.tensor([1.0, -2.0, 0.5], dtype=dtype)
    close(net(moved, types, mask), net(positions, types, mask), tolerance)


@PRECISION
@WEIGHTS
def test_properties_do_not_depend_on_the_order_of_atoms(four, randomise, orders, dtype, tolerance, scale) -> None:
    net = network(randomise, scale, dtype)
    positions, types, mask = soft(four, dtype)
    order, row = orders(mask), torch.arange(4)[:, None]
    shuffled = net(positions[row, order], types[row, order], mask[row, order])
    close(shuffled, net(positions, types, mask), tolerance)


@PRECISION
@WEIGHTS
def test_properties_do_not_depend_on_padding(four, randomise, dtype, tolerance, scale) -> None:
    net = network(randomise, scale, dtype)
    positions, types, mask = soft(four, dtype)
    alone = torch.cat([net(positions[b : b + 1, :n], types[b : b + 1, :n], mask[b : b + 1, :n])
                       for b, n in enumerate(mask.sum(1).tolist())])
    close(net(positions, types, mask), alone, tolerance)
    dirty = net(positions + 3.0 * ~mask[..., None], types + 2.0 * ~mask[..., None], mask)
    close(dirty, alone, tolerance)


def test_positions_and_types_matter_to_every_property(four, randomise) -> None:
    net = network(randomise)
    positions, types, mask = soft(four, torch.float64)
    said = net(positions, types, mask)
    assert ((net(1.05 * positions, types, mask) - said).abs().amax(0) > 1e-4).all()
    assert ((net(positions, types.flip(-1), mask) - said).abs().amax(0) > 1e-4).all()


@WEIGHTS
def test_gap_is_lumo_less_homo_exactly(four, randomise, scale) -> None:
    for dtype in (torch.float32, torch.float64):
        out = network(randomise, scale, dtype)(*soft(four, dtype))
        assert torch.equal(out[:, GAP], out[:, LUMO] - out[:, HOMO])


def test_gradients_are_those_of_finite_differences(four, randomise) -> None:
    """On ammonia, with respect to positions and half-decided types."""
    net = network(randomise, config=PropertyConfig(layers=2, scalars=8, density=4, vectors=4, tensors=3))
    positions, types, mask = (x[:1, :4] for x in soft(four, torch.float64))
    assert mask.all()
    assert torch.autograd.gradcheck(
        lambda x, h: net(x, h, mask), (positions.clone().requires_grad_(), types.clone().requires_grad_())
    )


def test_a_bond_across_the_cutoff_is_smooth(randomise) -> None:
    """Two atoms drawn apart along a line: value and slope go to their limits without a jump."""
    net = network(randomise, 1.5)
    cutoff = SMALL.cutoff
    types = torch.eye(5, dtype=torch.float64)[[0, 4]][None]

    def at(distance: Tensor) -> tuple[Tensor, Tensor]:
        def of(d: Tensor) -> Tensor:
            x = torch.stack([-d / 2, d / 2], -1)[..., None] * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
            return net(x, types.expand(len(d), -1, -1), torch.ones(len(d), 2, dtype=torch.bool))

        d = distance.clone().requires_grad_()
        value = of(d)
        slopes = [torch.autograd.grad(value[:, k].sum(), d, retain_graph=True)[0] for k in range(6)]
        return value.detach(), torch.stack(slopes, -1)

    value, slope = at(torch.tensor([3.0, cutoff - 1e-3, cutoff - 1e-6, cutoff + 1e-6, cutoff + 1, cutoff + 2],
                                   dtype=torch.float64))
    local = [ALPHA, GAP, HOMO, LUMO, CV]  # the dipole of two charges grows for ever, the others are settled
    assert (slope[0, local].abs() > 1e-3).all()
    torch.testing.assert_close(value[2:, local], value[5, local].expand(4, -1), rtol=0, atol=1e-12)
    assert slope[3:, local].abs().max() == 0
    assert slope[1:3, local].abs().max() < 1e-7
    torch.testing.assert_close(slope[2, MU], slope[3, MU], rtol=0, atol=1e-8)
    d = torch.linspace(cutoff - 0.3, cutoff + 0.1, 401, dtype=torch.float64)
    value, slope = at(d)
    numerical = (value[2:] - value[:-2]) / (d[2:] - d[:-2])[:, None]
    torch.testing.assert_close(numerical, slope[1:-1], rtol=0, atol=1e-5)


def test_dipole_of_a_centrosymmetric_molecule_is_zero_and_others_are_not(randomise) -> None:
    net = network(randomise, 1.5)
    torch.manual_seed(3)
    half = 2 * torch.randn(1, 4, 3, dtype=torch.float64)
    kinds = torch.randn(1, 4, 5, dtype=torch.float64).softmax(-1)
    mask = torch.ones(1, 8, dtype=torch.bool)
    types = torch.cat([kinds, kinds], 1)
    symmetric = net(torch.cat([half, -half], 1), types, mask)
    assert symmetric[0, MU].item() == pytest.approx(1e-3, rel=1e-6)  # the floor under the square root
    broken = net(torch.cat([half, -1.2 * half], 1), types, mask)
    assert broken[0, MU] > 1e-2


def test_alpha_and_cv_of_two_molecules_far_apart_add_up(four, randomise) -> None:
    """Apart from the fit's constant, which a molecule has once. The dipoles of two in one pose add up as well."""
    net = network(randomise, 1.0)
    positions, types, mask = (x[:1, :4] for x in soft(four, torch.float64))
    once = net(positions, types, mask)[0]
    far = positions + torch.tensor([0.0, 0.0, 50.0], dtype=torch.float64)
    twice = net(torch.cat([positions, far], 1), torch.cat([types, types], 1), mask.repeat(1, 2))[0]
    constant = net.composition[-1]
    for k, fitted in ((ALPHA, 0), (CV, 1)):
        grown = once[k] - constant[fitted]
        assert grown.abs() > 0.1
        torch.testing.assert_close(twice[k] - constant[fitted], 2 * grown, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(twice[MU], (4 * (once[MU].square() - 1e-6) + 1e-6).sqrt(), rtol=1e-9, atol=1e-9)


def test_composition_is_least_squares_for_alpha_and_cv_and_a_mean_for_the_orbitals() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (200, 5)).astype(np.float64)
    counts[:, 3] = 0  # an element that no molecule has must not spoil the fit
    targets = rng.normal(size=(200, 6)) + counts @ rng.normal(size=(5, 6))
    net = PropertyNetwork(5, SMALL).double()
    net.set_composition(torch.from_numpy(counts).float(), torch.from_numpy(targets).float())
    design = np.concatenate([counts, np.ones((200, 1))], 1)
    for k, column in enumerate([ALPHA, CV]):
        best, *_ = np.linalg.lstsq(design, targets[:, column], rcond=None)
        np.testing.assert_allclose(design @ net.composition[:, k].numpy(), design @ best, atol=1e-4)
        left = targets[:, column] - design @ best
        assert net.scale[k].item() == pytest.approx(left.std(ddof=1), rel=1e-4)
        assert abs(net.composition[3, k].item()) < 1e-6
    for k, column in ((2, HOMO), (3, LUMO)):
        np.testing.assert_allclose(net.composition[:-1, k].numpy(), 0)
        assert net.composition[-1, k].item() == pytest.approx(targets[:, column].mean(), rel=1e-4, abs=1e-5)
        assert net.scale[k].item() == pytest.approx(targets[:, column].std(ddof=1), rel=1e-4)


def test_every_weight_is_used(four, randomise) -> None:
    net = network(randomise)
    (net(*soft(four, torch.float64)) * torch.randn(4, 6, dtype=torch.float64)).sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == ["layers.0.vector_source.weight"]  # atoms have no vectors yet


def test_second_derivative_exists_for_line_searches_on_forces(four, randomise) -> None:
    net = network(randomise)
    positions, types, mask = soft(four, torch.float64)
    positions = positions.requires_grad_()
    (force,) = torch.autograd.grad(net(positions, types, mask).sum(), positions, create_graph=True)
    (second,) = torch.autograd.grad(force.square().sum(), positions)
    assert second.isfinite().all() and second.abs().max() > 0


def test_scores_of_drug_likeness_are_read_by_the_same_network() -> None:
    """What is linear in the composition is there from the start; the answer turns and moves with nothing."""
    torch.manual_seed(0)
    names = tuple(DRUGLIKE)
    small = PropertyNetwork(3, PropertyConfig(layers=1, scalars=16, density=8, vectors=8, tensors=4), names).double()
    counts = torch.randint(1, 9, (40, 3)).double()
    targets = torch.stack([counts @ torch.tensor([12.0, 1.0, 16.0], dtype=torch.float64)] * len(names), 1)
    small.set_composition(counts, targets)
    mass = counts @ small.composition[:3, small.sums.index("mw")] + small.composition[3, small.sums.index("mw")]
    torch.testing.assert_close(mass, targets[:, names.index("mw")])

    types = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2, 1]]), 3).double()
    positions, mask = torch.randn(1, 4, 3, dtype=torch.float64), torch.ones(1, 4, dtype=torch.bool)
    said = small(positions, types, mask)
    assert said.shape == (1, 5)
    torch.testing.assert_close(small(positions.flip(-1) + 1.0, types, mask), said)


def test_what_is_not_known_by_name_may_grow_with_the_molecule_or_not() -> None:
    """Before any training: exact where the composition says all, the mean at least where it says nothing."""
    names = ("solubility", "gap", "mu")
    network = PropertyNetwork(3, PropertyConfig(layers=1, scalars=16, density=8, vectors=8, tensors=4), names).double()
    counts = torch.randint(1, 9, (40, 3)).double()
    mass = counts @ torch.tensor([12.0, 1.0, 16.0], dtype=torch.float64)
    gap = 5 + torch.randn(40, dtype=torch.float64)
    network.set_composition(counts, torch.stack([mass, gap, gap], 1))
    torch.nn.init.zeros_(network.read[-1].weight)
    torch.nn.init.zeros_(network.read[-1].bias)
    torch.nn.init.zeros_(network.orbitals[-1].weight)
    torch.nn.init.zeros_(network.orbitals[-1].bias)
    types = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2, 1], [0, 0, 1, 2]]), 3).double()
    positions = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    said = network(positions, types, torch.ones(2, 4, dtype=torch.bool))
    torch.testing.assert_close(said[:, 0], torch.tensor([30.0, 41.0], dtype=torch.float64))
    assert ((said[:, 1] - 5).abs() < 2).all()
    torch.nn.init.ones_(network.orbitals[-1].weight)
    said = network(positions, types, torch.ones(2, 4, dtype=torch.bool))
    assert torch.autograd.grad(said[:, 1].sum(), positions)[0].abs().sum() > 0
