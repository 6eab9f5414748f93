"""The prepared data, where they are: real molecules to stand beside generated ones."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import rdkit
import torch
from tqdm import tqdm

from benchmarks.record import write
from molflow.data.qm9 import EXPECTED
from molflow.data.store import DataError, MoleculeStore, data_folder
from molflow.molecules.convert import Molecule, unbatch

MISSING = "no prepared data here (`molflow data prepare qm9`)"


def qm9_path() -> Path:
    return data_folder() / "qm9.safetensors"


def load_qm9() -> MoleculeStore | None:
    """QM9 as prepared, or None where it is not. Raises DataError where it is damaged or not the whole."""
    if not qm9_path().exists():
        return None
    store = MoleculeStore.load(qm9_path())
    if len(store) != EXPECTED:
        raise DataError(f"{qm9_path()} holds {len(store)} molecules, not {EXPECTED}: the field's split has no meaning")
    return store


def needed_qm9() -> MoleculeStore:
    """QM9 as prepared. Raises DataError where it is not, is damaged or not the whole."""
    store = load_qm9()
    if store is None:
        raise DataError(f"{qm9_path()}: {MISSING}")
    return store


def smiles_of(store: MoleculeStore, path: Path, members: np.ndarray, pool: Executor) -> set[str]:
    """SMILES of the valid ones among the given molecules, found out by ``pool``; kept beside the data's file ``path``,
    found again by what is in it, which molecules they are, and by RDKit's version.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(members.astype(np.int64).tobytes() + rdkit.__version__.encode())
    cache = path.with_name(f"{path.stem}.{digest.hexdigest()[:16]}.smiles")
    if cache.exists():
        return set(cache.read_text().split())
    found: set[str] = set()
    for part in tqdm(torch.as_tensor(members).split(10_000), desc="training SMILES"):
        found |= {smiles for smiles in pool.map(_smiles, unbatch(store.batch(part)), chunksize=250) if smiles}
    write(cache, "\n".join(sorted(found)) + "\n")
    return found


def _smiles(molecule: Molecule) -> str | None:
    return molecule.smiles if molecule.is_valid else None
