"""GEOM-Drugs (Axelrod, Gómez-Bombarelli 2022, Sci. Data 9, 185): its public forms, and the corrections the field has
learnt to make (Nikitin, Dunn, Koes, Isayev 2025, arXiv 2505.00169).

Conformers by CREST at GFN2-xTB. The forms, of which a folder holds one:

- ``drugs/*.pickle`` of ``rdkit_folder``: a molecule a file, its conformers as RDKit molecules, with their energies;
- ``drugs_crude.msgpack``: SMILES, and coordinates without bonds;
- ``train_data.pickle``, ``val_data.pickle``, ``test_data.pickle`` of MiDi: lists of (SMILES, conformers).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import covalent_radii
from rdkit import Chem, rdBase

from molflow.data import safe_pickle
from molflow.data.matching import lay_on
from molflow.data.records import Record, Unsound, pack
from molflow.data.safe_pickle import PickledMol
from molflow.data.shards import Made, Shards
from molflow.data.store import MOST_BONDED, PARTS, DataError, MoleculeStore
from molflow.extras import require
from molflow.molecules.convert import Molecule, from_rdkit
from molflow.molecules.druglike import scores_of
from molflow.molecules.elements import GEOM_DRUGS, MOST_ATOMS
from molflow.molecules.geometry import stretched
from molflow.molecules.labels import DRUGLIKE
from molflow.wording import in_a_line

PART = 200
"""Molecules of one part."""

STRETCH = 0.4
"""A bond may be so much longer or shorter than the sum of covalent radii, as a share of it (Nikitin et al. 2025)."""

LONGEST = 2**16
"""Entries of a list in a msgpack file: memory for them is taken when the file says how many there are."""

MIDI = {"train": "train_data.pickle", "valid": "val_data.pickle", "test": "test_data.pickle"}


class Entry(NamedTuple):
    """A molecule as it stands in the source: its number there, its place in `PARTS` if the source says so, and what is
    known of it: SMILES and (n, 4) arrays of atomic number and Å; RDKit molecules; or the file of them."""

    number: int
    split: int | None
    smiles: str | None = None
    coordinates: tuple[np.ndarray, ...] = ()
    mols: tuple[PickledMol, ...] = ()
    file: Path | None = None


def prepare(out: Path, *, source: Path, conformers: int = 5, workers: int = 2) -> MoleculeStore:
    """Read the conformers of lowest energy of every molecule, write ``out`` and return what was written.

    MiDi's files have no energies: there it is the first conformers. The parts are kept in a folder beside ``out``,
    ``NAME.parts``, with which a run that was stopped goes on.

    Args:
        source: a folder with one of the forms above.
    Raises:
        DataError: there is none, or several; a file is damaged, or is a pickle of something else.
    """
    form, found = recognise(source, conformers)
    shards = Shards(out.with_suffix(".parts"), {"data": "geom", "form": form, "conformers": conformers,
                                                "part": PART})
    made = shards.make(_parts(found), partial(make, conformers=conformers, form=form), workers=workers,
                       total=None, what="GEOM-Drugs")
    if not made:
        raise DataError(f"{source} holds no molecule")
    shards.join(made, out)
    for reason, times in shards.refused(range(made)).most_common():
        print(f"left out: {times} molecules, {reason}")
    return MoleculeStore.load(out)


def _parts(found: Iterator[Entry]) -> Iterator[list[Entry]]:
    while part := list(islice(found, PART)):
        yield part


def recognise(source: Path, conformers: int) -> tuple[str, Iterator[Entry]]:
    """The name of the form that a folder has, and its molecules. Raises DataError, ExtraMissing."""
    if not source.is_dir():
        raise DataError(f"no folder at {source}: --source wants one with GEOM-Drugs in one of its public forms")
    files = next((sorted(folder.glob("*.pickle")) for folder in (source / "drugs", source / "rdkit_folder" / "drugs")
                  if folder.is_dir()), [])
    splits = {place: source / MIDI[name] for place, name in enumerate(PARTS) if (source / MIDI[name]).is_file()}
    crude = source / "drugs_crude.msgpack"
    forms: dict[str, Iterator[Entry]] = {}
    if files:
        forms["rdkit_folder"] = (Entry(number, None, file=file) for number, file in enumerate(files))
    if splits:
        forms["midi"] = from_midi(splits, conformers)
    if crude.is_file():
        require("msgpack")
        forms["msgpack"] = from_msgpack(crude, conformers)
    if len(forms) != 1:
        what = f"GEOM-Drugs in several forms ({', '.join(forms)})" if forms else "no known form of GEOM-Drugs"
        raise DataError(f"{source} holds {what}: give a folder with either drugs/*.pickle, drugs_crude.msgpack, or "
                        f"{', '.join(MIDI.values())}")
    return next(iter(forms.items()))


def from_midi(files: dict[int, Path], conformers: int) -> Iterator[Entry]:
    """Of lists of (SMILES, RDKit molecules), by their place in `PARTS`. Raises DataError."""
    number = count()
    for split, path in files.items():
        try:
            with path.open("rb") as file:
                for entry in safe_pickle.entries(file):
                    if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], list)
                            and all(isinstance(mol, PickledMol) for mol in entry[1])):
                        raise safe_pickle.Refused("is not a list of SMILES and molecules")
                    yield Entry(next(number), split, mols=tuple(entry[1][:conformers]))
        except safe_pickle.Refused as error:
            raise DataError(f"{path} {error}") from None


def from_msgpack(path: Path, conformers: int) -> Iterator[Entry]:
    """Of maps from SMILES to conformers, a thousand molecules each. Raises DataError."""
    import msgpack

    number = count()
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(file, raw=False, max_buffer_size=2**30, max_array_len=LONGEST, max_map_len=LONGEST)
        while True:
            try:
                try:
                    molecules = unpacker.read_map_header()
                except msgpack.OutOfData:
                    return
                for _ in range(molecules):
                    smiles = unpacker.unpack()
                    kept = _lowest(unpacker.unpack()["conformers"], conformers)
                    yield Entry(next(number), None, smiles, tuple(_atoms(one["xyz"]) for one in kept))
            except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
                raise DataError(f"{path} is damaged ({type(error).__name__}: {str(error)[:100]})") from None


def _atoms(rows: Any) -> np.ndarray:
    if len(rows) > MOST_ATOMS:
        raise ValueError(f"a molecule has more than {MOST_ATOMS} atoms")
    atoms = np.array(rows, float)
    if atoms.ndim != 2 or atoms.shape[1] != 4 or not ((atoms[:, 0] > 0) & (atoms[:, 0] < len(covalent_radii))).all():
        raise ValueError("xyz is not a list of atomic number, x, y, z")
    return atoms


def from_file(path: Path, conformers: int) -> tuple[PickledMol, ...]:
    """The conformers of lowest energy of one molecule of ``rdkit_folder``. Raises DataError."""
    try:
        with path.open("rb") as file:
            return tuple(one["rd_mol"] for one in _lowest(safe_pickle.load(file)["conformers"], conformers))
    except safe_pickle.Refused as error:
        raise DataError(f"{path} {error}") from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not one of GEOM's ({type(error).__name__}: {in_a_line(error)})") from None


def _lowest(conformers: Iterable[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    return sorted(conformers, key=lambda one: float(one["totalenergy"]))[:most]


def make(entries: Iterable[Entry], *, conformers: int, form: str) -> Made:
    """One part of the data set, with the scores of `molflow.molecules.druglike`; all conformers of a molecule that is
    not sound in one of them are left out. Raises DataError where a file cannot be read."""
    records: list[Record] = []
    values: list[list[float]] = []
    index: list[int] = []
    split: list[int] = []
    refused: Counter[str] = Counter()
    with rdBase.BlockLogs():
        for entry in entries:
            mols = entry.mols if entry.file is None else from_file(entry.file, conformers)
            try:
                found = [lay_on(str(entry.smiles), xyz) for xyz in entry.coordinates] + [_molecule(mol) for mol in mols]
                smiles = checked(found)
            except (ValueError, RuntimeError) as error:
                refused[str(error) if isinstance(error, Unsound) else "RDKit cannot read it"] += 1
                continue
            score = list(scores_of(smiles).values())
            records += map(Record.of, found)
            values += [score] * len(found)
            index += [entry.number] * len(found)
            split += [by_smiles(smiles) if entry.split is None else entry.split] * len(found)
    return pack(records, np.array(values), np.array(index), names=tuple(DRUGLIKE), units=tuple(DRUGLIKE.values()),
                split=np.array(split), source=f"GEOM-Drugs from {form}, {conformers} conformers a molecule"), refused


def checked(molecules: list[Molecule]) -> str:
    """The one SMILES of all conformers. Raises Unsound."""
    if not molecules:
        raise Unsound("no conformers")
    for molecule in molecules:
        if not (set(molecule.numbers.tolist()) <= set(GEOM_DRUGS.elements)
                and set(molecule.charges.tolist()) <= set(GEOM_DRUGS.charges)):
            raise Unsound("an element or a charge that models of GEOM-Drugs do not know")
        if len(molecule.numbers) > MOST_BONDED:
            raise Unsound(f"more than {MOST_BONDED} atoms")
        if molecule.smiles is None:
            raise Unsound("an atom's valence is wrong or open")
        if "." in molecule.smiles:
            raise Unsound("several pieces")
        if not molecule.is_valid or stretched(molecule) > STRETCH:
            raise Unsound("a bond is broken in the geometry")
    if len({molecule.smiles for molecule in molecules}) > 1:
        raise Unsound("conformers with different bonds")
    return str(molecules[0].smiles)


def by_smiles(smiles: str) -> int:
    """Place in `PARTS` where the source has no split: eight in ten for training, one each for the others."""
    tenth = int.from_bytes(hashlib.sha256(smiles.encode()).digest()[:4], "big") % 10
    return PARTS.index("valid" if tenth == 0 else "test" if tenth == 1 else "train")


def _molecule(mol: PickledMol) -> Molecule:
    """Aromatic bonds become one Kekulé structure here, and nowhere again."""
    if not isinstance(mol, PickledMol):
        raise Unsound("no conformers")
    return from_rdkit(Chem.Mol(mol.data))  # type: ignore[call-overload]
