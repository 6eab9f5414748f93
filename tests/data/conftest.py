from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import torch

from molflow.data.store import MoleculeStore
from molflow.molecules.convert import Molecule
from tests.conftest import packed


@pytest.fixture(scope="session")
def store(qm9: list[Molecule]) -> MoleculeStore:
    """The 61 molecules as a data set; number 7 has lost its bonds, as an inconsistent one does."""
    return MoleculeStore(
        **packed(qm9),
        properties=torch.tensor([[m.properties["gap"], len(m.numbers)] for m in qm9]),
        index=torch.arange(100, 161, dtype=torch.int32),
        names=("gap", "size"),
        units=("eV", ""),
        source="61 molecules of QM9, π for a letter that is not ASCII",
    )


@pytest.fixture(scope="session")
def table() -> dict[str, pd.DataFrame]:
    """The first 30 rows of each part of the installed qm9pack, all columns."""
    spec = importlib.util.find_spec("qm9pack")
    assert spec is not None and spec.origin is not None, "the extra `train` (package qm9pack) is not installed"
    folder = Path(spec.origin).parent / "data"
    parts = ("qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv")
    return {name: pd.read_csv(folder / name, nrows=30) for name in parts}
