"""A data set of one's own: SDF files, with all hydrogens and 3D coordinates, to one compact file.

.. code-block:: sh

    molflow data prepare sdf --source FOLDER --name mine
    printf 'data = "mine"\\n[run]\\nmolecules = 400000\\n' > mine.toml
    printf 'data = "mine"\\nproperties = ["solubility"]\\n[run]\\nmolecules = 400000\\n' > guide.toml
    (cat guide.toml; echo 'part = "half_a"') > evaluator.toml
    molflow train generator --config mine.toml --out generator
    molflow train property --config guide.toml --out guide
    molflow train property --config evaluator.toml --out evaluator
    molflow design --target solubility=-2 --generator generator/generator.safetensors \\
        --guide guide/property.safetensors --evaluator evaluator/property.safetensors --out designed
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols

from molflow.data.records import Record, pack
from molflow.data.store import MOST_BONDED, PARTS, DataError, MoleculeStore
from molflow.molecules.convert import Molecule
from molflow.molecules.elements import VOCABULARIES
from molflow.molecules.io import VALID_FIELD, Skipped, iterate_sdf

ENDINGS = (".sdf", ".sd", ".mol")

CHUNK = 5000
"""Molecules that are in memory as they were read; those before them are packed."""

_WITH_UNIT = re.compile(r"(.+?)\s*\[([^\[\]]+)\]")


def prepare(out: Path, *, source: Path, tell: Callable[[str], None]) -> tuple[MoleculeStore, int]:
    """Read every sound molecule and write ``out``; returns what was written, and how many records were left out.

    A field that is a number in some molecules becomes a property, NaN for the others; ``solubility [mol/l]`` is one
    called solubility, in mol/l. Equal molecules, by SMILES without stereochemistry, are conformers of one: they share a
    number. By its number a molecule is in the training part, eight in ten, or in one of the others.

    Args:
        source: a file, or a folder of them: `ENDINGS`, read in the order of their names.
        tell: called with a sentence for each record or file that is left out.

    Raises:
        DataError: there is no such file or folder, or no molecule in it could be read.
    """
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in ENDINGS) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise DataError(f"there is no file in {', '.join(ENDINGS)} at {source}")
    packed: list[MoleculeStore] = []
    recent: list[Record] = []
    index, numbers = array("q"), dict[str, int]()
    columns: dict[str, array[float]] = {}
    left_out: Counter[str] = Counter()

    def refuse(path: Path, place: str, reason: str) -> None:
        left_out[reason] += 1
        tell(f"left out {path.name}{place}: {reason}")

    def settle() -> None:
        if recent:
            packed.append(pack(recent, np.zeros((len(recent), 0)), np.zeros(len(recent)), names=(), units=(),
                               source=f"{source.name}, {len(files)} file{'s' * (len(files) > 1)} of SDF",
                               split=np.zeros(len(recent))))
            recent.clear()

    for path in files:
        try:
            for record, one in enumerate(iterate_sdf(path), start=1):
                if reason := one.reason if isinstance(one, Skipped) else fault(one):
                    name = one.name if isinstance(one, Skipped) else one.properties.get("name")
                    refuse(path, f", record {record} ({name or 'unnamed'})", reason)
                    continue
                assert isinstance(one, Molecule)
                for key, value in one.properties.items():
                    if isinstance(value, float) and math.isfinite(value) and key != VALID_FIELD:
                        column = columns.setdefault(key, array("d"))
                        column.extend([math.nan] * (len(index) - len(column)))
                        column.append(value)
                index.append(numbers.setdefault(str(one.smiles), len(numbers)))
                recent.append(Record.of(one))
                if len(recent) == CHUNK:
                    settle()
        except (ValueError, OSError) as error:  # the file as a whole
            refuse(path, "", str(error).removeprefix(f"{path} "))
    settle()
    if not packed:
        raise DataError(f"no molecule of {source} can be used: {left_out.most_common(1)[0][0]}")
    for column in columns.values():
        column.extend([math.nan] * (len(index) - len(column)))
    names, units = zip(*named(list(columns)), strict=True) if columns else ((), ())
    values = np.array([*columns.values()], np.float32).reshape(len(columns), len(index)).T
    store = MoleculeStore.cat(packed)
    store = MoleculeStore(**vars(store) | {
        "properties": torch.from_numpy(np.ascontiguousarray(values)), "names": names, "units": units,
        "index": torch.tensor(index, dtype=torch.int32), "source": packed[0].source,
        "split": torch.tensor([part_of(number) for number in index], dtype=torch.uint8)})
    store.save(out)
    return store, left_out.total()


def fault(molecule: Molecule) -> str:
    """Why a molecule is not one to learn from, in a few words; empty if it is."""
    if not any({*molecule.numbers.tolist()} <= {*known.elements} for known in VOCABULARIES.values()):
        widest = max((known.elements for known in VOCABULARIES.values()), key=len)
        strange = [chemical_symbols[number] for number in sorted({*molecule.numbers.tolist()} - {*widest})]
        return f"{', '.join(strange)} is in no vocabulary: there are {', '.join(chemical_symbols[n] for n in widest)}"
    if not any({*molecule.charges.tolist()} <= {*known.charges} for known in VOCABULARIES.values()):
        return "a formal charge that is in no vocabulary"
    return "too many atoms" if len(molecule.numbers) > MOST_BONDED else molecule.fault


def named(fields: list[str]) -> list[tuple[str, str]]:
    """Name and unit of each field; a name that two of them would have stays as it is."""
    split = [(match[1], match[2]) if (match := _WITH_UNIT.fullmatch(field)) else (field, "") for field in fields]
    times = Counter(name for name, _ in split)
    return [pair if times[pair[0]] == 1 else (field, pair[1]) for field, pair in zip(fields, split, strict=True)]


def part_of(number: int) -> int:
    """The place in `PARTS` of the molecule of that number."""
    tenth = int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:4], "big") % 10
    return PARTS.index("valid" if tenth == 0 else "test" if tenth == 1 else "train")
