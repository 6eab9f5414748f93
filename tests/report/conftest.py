"""Runs as ``design`` returns them, of real molecules with made-up predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from molflow.designer import DesignRun
from molflow.molecules.convert import Molecule
from molflow.molecules.io import read_sdf
from molflow.targets import check_targets

REAL, _ = read_sdf(Path(__file__).parents[1] / "molecules" / "qm9_sample.sdf")
GAP, THREE = {"gap": 5.0}, {"gap": 5.0, "alpha": 70.0, "mu": 1.5}
SIX = {**THREE, "homo": -6.1, "lumo": -0.5, "cv": 30.0}


def spoil(molecule: Molecule, how: int) -> Molecule:
    """No bonds; a bond too many; positions that diverged; no atoms."""
    bonds, n = molecule.bonds.copy(), len(molecule.numbers)
    if how == 0:
        return replace(molecule, bonds=np.zeros_like(bonds))
    if how == 1:
        bonds[0, n - 1] = bonds[n - 1, 0] = 3 - bonds[0, n - 1]
        return replace(molecule, bonds=bonds)
    if how == 2:
        return replace(molecule, positions=np.full((n, 3), np.nan))
    return Molecule(np.zeros((0, 3)), molecule.numbers[:0], molecule.charges[:0], bonds[:0, :0])


def made(folder: Path, n: int = 5, targets: dict[str, float | str] = GAP, broken: int = 1, rounds: int = 6,
         seed: int = 0) -> DesignRun:
    """A run as ``design`` returns it, of real molecules with made-up predictions; the first few are broken."""
    rng = np.random.default_rng(seed)
    molecules = []
    for i in range(n):
        molecule = REAL[(7 * i + seed) % len(REAL)]
        molecule = spoil(molecule, i % 4) if i < broken else molecule
        said = {name: np.nan if i < broken and i % 4 >= 2 else value + rng.normal(0, 0.2)
                for name, value in SIX.items()}
        properties = {f"{who}_{name}": value for name, value in said.items() for who in ("guide", "evaluator")}
        properties |= {f"target_{name}": value for name, value in targets.items()}
        molecules.append(replace(molecule, properties={**properties, "valid": int(i >= broken), "nfe": 100 * i}))
    history = np.minimum.accumulate(np.exp(rng.normal(1, 2, (rounds + 1, n))))
    history[:, :broken] = np.inf
    weights = {role: folder / "weights" / f"{role}.safetensors" for role in ("generator", "guide", "evaluator")}
    for role, path in weights.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(role)
    frames = []
    if n > broken:  # a straight path to the last one, whose bonds appear half-way
        last, noise = molecules[-1], rng.normal(size=molecules[-1].positions.shape)
        for t in (0.0, 0.25, 0.5, 0.75, 1.0):
            bonds = last.bonds if t >= 0.5 else 2 * (1 - np.eye(len(noise), dtype=np.int64))
            frames.append(replace(last, positions=(1 - t) * noise + t * last.positions, bonds=bonds,
                                  properties={"molecule": n, "t": t}))
    return DesignRun(molecules, check_targets(targets), history, {
        "targets": targets, "n": n, "seed": np.int64(seed), "atoms": None, "device": "cpu",
        "budget": {"lookups": 2, "draws": 16, "generations": 3, "children": 4, "gradients": 1, "steps": 20},
        "seconds": 61.7, "weights": weights}, ["a warning"], frames)


@pytest.fixture(scope="session")
def designed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DesignRun]:
    """Makes runs; their weights lie elsewhere, so that what is in ``tmp_path`` is what was saved."""
    return partial(made, tmp_path_factory.mktemp("inputs"))
