"""The whole map x(0) -> x(1): network, endpoint, solver and memory together, values and gradients."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from e3nn import o3
from torch import Tensor

from molflow.flow.solvers import integrate, time_grid
from molflow.flow.source import optimise_source
from molflow.flow.state import State
from molflow.molecules.batch import MoleculeBatch, pair_mask
from molflow.molecules.elements import QM9
from molflow.molecules.state import MoleculeSpace
from molflow.nn.velocity import MoleculeField, VelocityConfig, VelocityNetwork

SMALL = VelocityConfig(layers=2, scalars=16, vectors=8, pairs=8, messages=8, heads=4, radial=6)
WAYS = pytest.mark.parametrize(
    ("method", "checkpoint"), [("euler", False), ("euler", True), ("midpoint", False), ("midpoint", True)]
)
STEPS = 3


@pytest.fixture(scope="module")
def net(randomise) -> VelocityNetwork:
    torch.manual_seed(0)
    return randomise(VelocityNetwork(QM9, SMALL), 1.0, torch.float64).requires_grad_(False)


@pytest.fixture(scope="module")
def source(four: MoleculeBatch) -> tuple[State, Tensor]:
    space = MoleculeSpace(four.mask, QM9)
    noise = space.noise(torch.Generator().manual_seed(4))
    return space.unpack(space.pack(noise).double()), four.mask  # centred to float64's precision


def run(net, source: State, mask: Tensor, method: str, checkpoint: bool, weights: Tensor
        ) -> tuple[State, State]:
    """Endpoint, and the gradient of a loss that knows no direction in space."""
    x0 = {key: value.clone().requires_grad_() for key, value in source.items()}
    field = MoleculeField(net, mask)
    end = integrate(field, x0, grid=time_grid(STEPS), method=method, checkpoint=checkpoint).state
    x = end["positions"]
    square = (x[:, None] - x[:, :, None]).square().sum(-1)
    w = weights[:, :, None] * weights[:, None] * pair_mask(mask)
    loss = ((w * (square + 1).sqrt()).sum() + (weights[..., None] * end["types"].square()).sum()
            + (weights * end["charges"][..., 0]).sum() + (w[..., None] * end["bonds"][..., 1:].square()).sum())
    gradient = torch.autograd.grad(loss, list(x0.values()))
    return {k: v.detach() for k, v in end.items()}, dict(zip(x0, gradient, strict=True))


def close(got: State, wanted: State) -> None:
    for key, value in wanted.items():
        largest = value.abs().max().item()
        assert largest > 1e-2, f"{key} is trivially zero"
        assert (got[key] - value).abs().max().item() <= 1e-9 * max(1.0, largest), key


@pytest.fixture
def weights(source) -> Tensor:
    _, mask = source
    return torch.rand(mask.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64) * mask


@WAYS
@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "rotoreflection"])
def test_map_and_gradient_turn_with_the_source(net, source, weights, turn, method, checkpoint, sign) -> None:
    x0, mask = source
    torch.manual_seed(1)
    q = sign * o3.rand_matrix(dtype=torch.float64)
    end, gradient = run(net, x0, mask, method, checkpoint, weights)
    after, gradient_after = run(net, turn(x0, q, torch.zeros(3).double(), mask), mask, method, checkpoint, weights)
    close(after, turn(end, q, torch.zeros(3).double(), mask))
    close(gradient_after, {**gradient, "positions": gradient["positions"] @ q.T})


@WAYS
def test_map_and_gradient_follow_the_order_of_atoms(
    net, source, weights, reorder, orders, method, checkpoint
) -> None:
    x0, mask = source
    order = orders(mask)
    end, gradient = run(net, x0, mask, method, checkpoint, weights)
    after, gradient_after = run(
        net, reorder(x0, order), mask.gather(1, order), method, checkpoint, weights.gather(1, order)
    )
    close(after, reorder(end, order))
    close(gradient_after, reorder(gradient, order))


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_checkpoints_change_neither_endpoint_nor_gradient(net, source, weights, method) -> None:
    x0, mask = source
    plain, kept = (run(net, x0, mask, method, checkpoint, weights) for checkpoint in (False, True))
    for a, b in zip(plain, kept, strict=True):
        close(b, a)


def test_gradient_through_the_map_is_that_of_finite_differences(net, source, weights) -> None:
    """Along a random direction of each part of the source, memory included."""
    x0, mask = source
    _, gradient = run(net, x0, mask, "midpoint", True, weights)
    space = MoleculeSpace(mask, QM9)
    way = {k: v.double() for k, v in space.noise(torch.Generator().manual_seed(8)).items()}

    def loss(step: float, key: str) -> float:
        moved = {**x0, key: x0[key] + step * way[key]}
        end, _ = run(net, moved, mask, "midpoint", False, weights)
        x = end["positions"]
        square = (x[:, None] - x[:, :, None]).square().sum(-1)
        w = weights[:, :, None] * weights[:, None] * pair_mask(mask)
        return ((w * (square + 1).sqrt()).sum() + (weights[..., None] * end["types"].square()).sum()
                + (weights * end["charges"][..., 0]).sum()
                + (w[..., None] * end["bonds"][..., 1:].square()).sum()).item()

    for key in x0:
        numerical = (loss(1e-4, key) - loss(-1e-4, key)) / 2e-4
        assert numerical == pytest.approx((gradient[key] * way[key]).sum().item(), rel=1e-5, abs=1e-6), key


def test_endpoint_stays_in_the_space(net, source, weights) -> None:
    """Centred, symmetric, nothing on the padding, and class parts are the last estimate's probabilities."""
    x0, mask = source
    end, _ = run(net, x0, mask, "euler", False, weights)
    space = MoleculeSpace(mask, QM9)
    back = space.unpack(space.pack(end))
    for key in end:
        torch.testing.assert_close(back[key], end[key], rtol=0, atol=1e-9)
    for key, real in {"types": mask, "charges": mask, "bonds": pair_mask(mask)}.items():
        torch.testing.assert_close(end[key].sum(-1), real.double(), rtol=0, atol=1e-6)


def test_memory_is_handed_on_and_changes_the_endpoint(net, source, weights) -> None:
    x0, mask = source
    end, _ = run(net, x0, mask, "euler", False, weights)
    field, state, memory = MoleculeField(net, mask), x0, None
    forgetful = x0
    with torch.no_grad():
        for start, stop in pairwise(time_grid(STEPS).tolist()):
            time = torch.full((len(mask),), start, dtype=torch.float64)
            velocity, memory = field(time, state, memory)
            state = {key: value + (stop - start) * velocity[key] for key, value in state.items()}
            velocity, _ = field(time, forgetful, None)
            forgetful = {key: value + (stop - start) * velocity[key] for key, value in forgetful.items()}
    close(end, state)
    assert (end["positions"] - forgetful["positions"]).abs().max() > 1e-3


def test_source_optimisation_lowers_a_loss_for_every_molecule_on_its_shell(net, source) -> None:
    x0, mask = source
    space = MoleculeSpace(mask, QM9)

    def flow(state: State, index: Tensor) -> State:
        return integrate(MoleculeField(net, mask[index]), state, grid=time_grid(2), method="euler",
                         checkpoint=True).state

    def loss(state: State, index: Tensor) -> Tensor:  # radius of gyration at a wanted value
        radius = state["positions"].square().sum((1, 2)) / mask[index].sum(1)
        return (radius - 3.0).square()

    start = loss(flow(x0, torch.arange(4)), torch.arange(4)).detach()
    result = optimise_source(flow, loss, space, x0, max_evals=8, nfe_per_flow=2)
    assert (result.loss < 0.9 * start).all()
    for columns, _ in space.groups().values():
        before, after = (space.pack(s)[:, columns].norm(dim=1) for s in (x0, result.source))
        torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)
