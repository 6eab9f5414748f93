"""Several property networks as one: together they read a molecule, their disagreement says how far to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from molflow.nn.property import RESOLUTION, PropertyNetwork


class Ensemble(nn.Module):
    """M networks of the same sizes that read the same P properties (Lakshminarayanan et al. 2017, arXiv 1612.01474), of
    which a better one may weigh more.

    Args:
        members: the networks.
        weights: of each, 1 in all; equal by default.
        resolution: of each property.
    """

    members: nn.ModuleList
    weights: Tensor

    def __init__(self, members: Sequence[PropertyNetwork], weights: Sequence[float] | None = None,
                 resolution: Mapping[str, float] = RESOLUTION) -> None:
        super().__init__()
        self.properties = self.learnt = members[0].properties
        self.resolution = {name: resolution[name] for name in self.properties}
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", torch.tensor(weights or [1 / len(members)] * len(members)))

    def forward(self, positions: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """What each of them says, (M, B, P), of molecules as `PropertyNetwork` takes them."""
        return torch.stack([member(positions, types, mask) for member in self.members])

    def mean(self, said: Tensor) -> Tensor:
        """Their weighted mean (B, P) of what they say (M, B, P)."""
        return torch.tensordot(self.weights.to(said), said, 1)

    def doubt(self, said: Tensor) -> Tensor:
        """How far they are apart, (B,), in what they say (M, B, P): the standard deviation in units of the resolution,
        averaged over the properties. 0 for a single network.

        One number for all properties, because it is the molecule that is strange to them: it tells the error of a
        property better than the spread of that property alone, which of few members is a matter of luck.
        """
        scale = torch.tensor(list(self.resolution.values())).to(said)
        return (said.std(0, correction=0) / scale).mean(-1)
