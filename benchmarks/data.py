"""The prepared data, where they are: real molecules to stand beside generated ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import rdkit
import torch
from tqdm import tqdm

from benchmarks.record import write
from molflow.data.qm9 import EXPECTED
from molflow.data.store import DataError, MoleculeStore, data_folder
from molflow.molecules.convert import unbatch

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


def smiles_of(store: MoleculeStore, path: Path, members: np.ndarray) -> set[str]:
    """SMILES of the valid ones among the given molecules; kept beside the data's file ``path``, found again by what
    is in it, which molecules they are, and by RDKit's version.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(members.astype(np.int64).tobytes() + rdkit.__version__.encode())
    cache = path.with_name(f"{path.stem}.{digest.hexdigest()[:16]}.smiles")
    if cache.exists():
        return set(cache.read_text().split())
    found: set[str] = set()
    for part in tqdm(torch.as_tensor(members).split(500), desc="training SMILES"):
        found |= {molecule.smiles for molecule in unbatch(store.batch(part)) if molecule.is_valid and molecule.smiles}
    write(cache, "\n".join(sorted(found)) + "\n")
    return found
