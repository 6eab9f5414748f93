"""How one molecule came from noise, as a file: extended XYZ, which ASE and most viewers play.

XYZ knows no bonds, and SDF has no room for the dozens that an atom has while all is still noise. So a frame's bonds
stand in its comment line, as ``bonds="0-1:1 0-4:2"``: atoms from 0 and the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ase
import numpy as np

from molflow.molecules.convert import Molecule
from molflow.molecules.elements import MOST_ATOMS
from molflow.molecules.io import read_xyz, write_xyz


def write_trajectory(path: Path, frames: Sequence[Molecule]) -> None:
    """Write the frames with their properties. Raises OSError."""
    write_xyz(path, [replace(frame, properties=frame.properties | _written(frame.bonds)) for frame in frames])


def read_trajectory(path: Path) -> list[Molecule]:
    """Frames as `write_trajectory` wrote them, ``t`` and ``molecule`` among their properties.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it holds something else.
    """
    frames = [_frame(atoms) for atoms in read_xyz(path)]
    if len({(len(frame.numbers), frame.properties["molecule"]) for frame in frames}) != 1:
        raise ValueError(f"{path} is not the trajectory of one molecule")
    return frames


def _written(bonds: np.ndarray) -> dict[str, float | str]:
    first, second = np.triu(bonds, 1).nonzero()
    text = " ".join(f"{i}-{j}:{bonds[i, j]}" for i, j in zip(first, second, strict=True))
    return {"bonds": text} if text else {}  # ASE's reader takes what follows for the value of an empty one


def _frame(atoms: ase.Atoms) -> Molecule:
    n = len(atoms)
    if n > MOST_ATOMS:
        raise ValueError(f"{n} atoms are more than the {MOST_ATOMS} that a molecule may have")
    bonds = np.zeros((n, n), dtype=np.int64)
    try:
        for bond in str(atoms.info.get("bonds", "")).split():
            pair, _, order = bond.partition(":")
            i, j = (int(index) for index in pair.split("-"))
            bonds[i, j] = bonds[j, i] = int(order)
        properties: dict[str, float | str] = {key: float(atoms.info[key]) for key in ("molecule", "t")}
        if not np.isfinite(list(properties.values())).all():
            raise ValueError("no finite number")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"a frame has no time, molecule or bonds that can be read ({error})") from None
    charges = atoms.get_initial_charges().astype(np.int64)
    return Molecule(atoms.positions, atoms.numbers.astype(np.int64), charges, bonds, properties)
