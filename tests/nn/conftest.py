from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from molflow.flow.path import interpolate
from molflow.flow.state import State
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.elements import QM9
from molflow.molecules.state import MoleculeSpace, encode


@pytest.fixture(scope="session")
def four(qm9: list[Molecule]) -> MoleculeBatch:
    """Ammonia, a zwitterion and two others, of 4 to 18 atoms, in float32."""
    charged = next(m for m in qm9 if (m.charges != 0).any())
    return collate([qm9[1], charged, qm9[30], qm9[55]])


Randomise = Callable[[nn.Module, float, torch.dtype], nn.Module]


@pytest.fixture(scope="session")
def randomise() -> Randomise:
    """Random weights everywhere, so that no bias or last layer is zero; matrices ``scale`` times the usual size."""

    def randomised(network: nn.Module, scale: float, dtype: torch.dtype) -> nn.Module:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in network.parameters():
                size = scale * parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.3
                centre = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
                parameter.copy_(centre + size * torch.randn(parameter.shape, generator=generator))
        return network.to(dtype).eval()

    return randomised


@pytest.fixture(scope="session")
def on_path() -> Callable[[MoleculeBatch, Tensor, torch.dtype, int], tuple[State, Tensor]]:
    """x(t) of a batch with Gaussian noise, and the mask."""

    def build(batch: MoleculeBatch, t: Tensor, dtype: torch.dtype, seed: int = 0) -> tuple[State, Tensor]:
        space = MoleculeSpace(batch.mask, QM9)
        noise = space.noise(torch.Generator().manual_seed(seed))
        state = interpolate(noise, encode(batch, QM9), t.to(noise["positions"]))
        return {key: value.to(dtype) for key, value in state.items()}, batch.mask

    return build


@pytest.fixture(scope="session")
def turn() -> Callable[[State, Tensor, Tensor, Tensor], State]:
    """Positions x -> Q x + shift of the real atoms; everything else as it is."""

    def turned(state: State, q: Tensor, shift: Tensor, mask: Tensor) -> State:
        moved = (state["positions"] @ q.T + shift) * mask[..., None]
        return {**state, "positions": moved}

    return turned


@pytest.fixture(scope="session")
def reorder() -> Callable[[State, Tensor], State]:
    """Rows put in another order, in each molecule its own, order (B, N); padding may come to lie between atoms."""

    def reordered(state: State, order: Tensor) -> State:
        row = torch.arange(len(order))[:, None]
        changed = {key: value[row, order] for key, value in state.items() if key != "bonds"}
        if "bonds" in state:
            changed["bonds"] = state["bonds"][row[..., None], order[:, :, None], order[:, None]]
        return changed

    return reordered


@pytest.fixture(scope="session")
def orders() -> Callable[[Tensor], Tensor]:
    """Random orders (B, N) of all rows, padding included."""

    def draw(mask: Tensor) -> Tensor:
        return torch.rand(mask.shape, generator=torch.Generator().manual_seed(3)).argsort(1)

    return draw
