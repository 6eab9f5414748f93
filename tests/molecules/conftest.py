from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from molflow.molecules.convert import Molecule
from molflow.molecules.elements import NUMBER_OF
from molflow.molecules.io import read_sdf

# Time limits on single examples would only measure how busy the machine is.
settings.register_profile("molflow", deadline=None)
settings.load_profile("molflow")


@pytest.fixture(scope="session")
def qm9_path() -> Path:
    """61 molecules of QM9 (Ramakrishnan et al. 2014, CC0) out of the PyPI package qm9pack (MIT).

    The six smallest and, at random, 10 zwitterions, 10 cages of four or more rings, 10 aromatic, 5 nitriles, 6 with
    fluorine, 4 alkynes and 10 others. Bonds are the Kekulé form of QM9's SMILES, whose heavy atoms stand in the order
    of the coordinates; each hydrogen is on its nearest heavy atom. Fields: QM9's own SMILES, HOMO-LUMO gap in eV.
    """
    return Path(__file__).parent / "qm9_sample.sdf"


@pytest.fixture(scope="session")
def qm9(qm9_path: Path) -> list[Molecule]:
    molecules, skipped = read_sdf(qm9_path)
    assert len(molecules) == 61 and not skipped
    return molecules


Make = Callable[..., Molecule]


@pytest.fixture(scope="session")
def make() -> Make:
    """A molecule from e.g. "C H H H", (i, j, order) and charges, its atoms 1 Å apart in a row."""

    def build(symbols: str, bonds: list[tuple[int, int, int]], charges: list[int] | None = None) -> Molecule:
        numbers = np.array([NUMBER_OF[symbol] for symbol in symbols.split()], dtype=np.int64)
        n = len(numbers)
        matrix = np.zeros((n, n), dtype=np.int64)
        for i, j, order in bonds:
            matrix[i, j] = matrix[j, i] = order
        positions = np.arange(n)[:, None] * np.array([1.0, 0.0, 0.0])
        return Molecule(positions, numbers, np.array(charges or [0] * n, dtype=np.int64), matrix)

    return build


@pytest.fixture(scope="session")
def star(make: Make) -> Make:
    """A central atom with single bonds to hydrogens."""

    def build(centre: str, hydrogens: int, charge: int = 0) -> Molecule:
        bonds = [(0, i + 1, 1) for i in range(hydrogens)]
        return make(" ".join([centre] + ["H"] * hydrogens), bonds, [charge] + [0] * hydrogens)

    return build
