from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from molflow.data import store as store_module
from molflow.data.store import MoleculeStore
from molflow.molecules.convert import Molecule
from tests.conftest import packed


@pytest.fixture(scope="session")
def store(qm9: list[Molecule]) -> MoleculeStore:
    """The 61 molecules as a data set; number 7 without bonds. The gap is real, the other properties are functions
    of composition and shape, of about the size and spread that QM9 has."""
    values = []
    for m in qm9:
        radius = np.sqrt(((m.positions - m.positions.mean(0)) ** 2).sum(1).mean())
        gap, homo = float(m.properties["gap"]), -6.5 + 0.1 * radius
        values.append([5.0 * (m.numbers > 1).sum() + 2.5 * (m.numbers == 1).sum() + radius, gap, homo, homo + gap,
                       radius, 2.0 * len(m.numbers) - radius])
    return MoleculeStore(
        **packed(qm9),
        properties=torch.tensor(np.array(values), dtype=torch.float32),
        index=torch.arange(61, dtype=torch.int32),
        names=("alpha", "gap", "homo", "lumo", "mu", "cv"),
        units=("Bohr^3", "eV", "eV", "eV", "D", "cal/(mol K)"),
        source="61 molecules of QM9, properties made up but for the gap",
    )


@pytest.fixture(scope="session")
def as_large_as_qm9(store: MoleculeStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``qm9.safetensors``: the 61 molecules over and over, 130,831 of them, for commands to read."""
    count, times = 130_831, 130_831 // 61 + 1
    tiled = {key: value.repeat(times, *[1] * (value.dim() - 1)) for key, value in vars(store).items()
             if isinstance(value, torch.Tensor)}
    for key, entries in (("atom_ptr", ("positions", "numbers", "charges")), ("bond_ptr", ("bond_index", "bond_order"))):
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), vars(store)[key].diff().repeat(times).cumsum(0)])
        tiled[key] = ends[: count + 1]
        tiled |= {entry: tiled[entry][: int(ends[count])] for entry in entries}
    tiled |= {key: tiled[key][:count] for key in ("properties", "bonded")}
    tiled["index"] = torch.arange(count, dtype=torch.int32)
    folder = tmp_path_factory.mktemp("data")
    dataclasses.replace(store, **tiled).save(folder / "qm9.safetensors")
    return folder


@pytest.fixture
def small_split(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """A split of the 61 molecules in place of that of QM9's 130,831: data, not what is tested."""
    split = {"train": np.arange(40), "half_a": np.arange(20), "half_b": np.arange(20, 40),
             "valid": np.arange(40, 61), "test": np.arange(0)}
    monkeypatch.setattr(store_module, "qm9_split", lambda: split)
    return split
