from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from molflow.data.prior import Prior
from molflow.data.store import MoleculeStore
from molflow.molecules.convert import collate
from molflow.molecules.elements import QM9
from molflow.molecules.io import read_sdf
from molflow.nn.property import PROPERTIES, UNITS, PropertyConfig, PropertyNetwork
from molflow.nn.velocity import VelocityConfig, VelocityNetwork
from molflow.nn.weights import Card, save_weights

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``python -m benchmarks ...`` in this process: exit status, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def store() -> MoleculeStore:
    """61 real molecules with made-up properties."""
    molecules, _ = read_sdf(Path(__file__).parents[1] / "molecules" / "qm9_sample.sdf")
    batch = collate(molecules)
    pairs = torch.triu(batch.bonds).nonzero()

    def ptr(counts: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])

    return MoleculeStore(
        positions=batch.positions[batch.mask].float(),
        numbers=batch.numbers[batch.mask].byte(),
        charges=batch.charges[batch.mask].to(torch.int8),
        atom_ptr=ptr(batch.sizes),
        bond_index=pairs[:, 1:].byte(),
        bond_order=batch.bonds[tuple(pairs.T)].byte(),
        bond_ptr=ptr(torch.bincount(pairs[:, 0], minlength=len(batch))),
        properties=torch.randn(len(batch), len(PROPERTIES), generator=torch.Generator().manual_seed(0)),
        index=torch.arange(len(batch), dtype=torch.int32),
        bonded=torch.ones(len(batch), dtype=torch.bool),
        names=PROPERTIES,
        units=tuple(UNITS.values()),
        source="test",
    )


@pytest.fixture(scope="session")
def weights(store: MoleculeStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained networks, as small as they can be, saved as trained ones are."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    small = VelocityConfig(layers=1, scalars=8, vectors=4, pairs=4, messages=4, heads=2, radial=4)
    prior = Prior.of(store, np.arange(len(store)), PROPERTIES).to_json()
    save_weights(folder / "generator.safetensors", VelocityNetwork(QM9, small),
                 Card("generator", vars(small), prior=prior))
    reader = PropertyConfig(layers=1, scalars=8, density=8, vectors=8, tensors=4)
    for role in ("guide", "evaluator"):
        save_weights(folder / f"{role}.safetensors", PropertyNetwork(len(QM9.elements), reader),
                     Card("property", vars(reader)))
    return folder
