from __future__ import annotations

import pytest
import torch

from molflow.nn.ensemble import Ensemble
from molflow.nn.property import PROPERTIES, READ, RESOLUTION, PropertyConfig, PropertyNetwork

SMALL = PropertyConfig(layers=1, scalars=16, density=8, vectors=6, tensors=5)


def test_every_member_is_asked_and_has_a_gradient(four) -> None:
    torch.manual_seed(0)
    members = [PropertyNetwork(5, SMALL) for _ in range(3)]
    positions, mask = four.positions.clone().requires_grad_(), four.mask
    types = torch.rand(*mask.shape, 5)
    said = Ensemble(members)(positions, types, mask)
    assert said.shape == (3, 4, 6)
    for row, member in zip(said, members, strict=True):
        torch.testing.assert_close(row, member(positions, types, mask))
    mine, alone = (torch.autograd.grad(value.sum(), positions)[0]
                   for value in (said.mean(0), sum(m(positions, types, mask) for m in members) / 3))
    torch.testing.assert_close(mine, alone)


def test_the_mean_is_weighted() -> None:
    members, said = [PropertyNetwork(5, SMALL) for _ in range(3)], torch.randn(3, 4, 6)
    torch.testing.assert_close(Ensemble(members).mean(said), said.mean(0))
    torch.testing.assert_close(Ensemble(members, [0.5, 0.2, 0.3]).mean(said),
                               0.5 * said[0] + 0.2 * said[1] + 0.3 * said[2])


@pytest.mark.parametrize("names", [PROPERTIES, READ["moses3d"]])
def test_doubt_is_the_spread_in_units_of_the_resolution(names: tuple[str, ...]) -> None:
    scale = torch.tensor([RESOLUTION[name] for name in names])
    base = torch.randn(1, 4, len(names))
    members = [PropertyNetwork(5, SMALL, names) for _ in range(2)]
    assert (Ensemble(members[:1]).doubt(base) == 0).all()
    apart = torch.tensor([0.0, 1.0, 2.0, 5.0])
    said = torch.cat([base + apart[:, None] * scale, base - apart[:, None] * scale])
    torch.testing.assert_close(Ensemble(members).doubt(said), apart, atol=1e-4, rtol=1e-4)
