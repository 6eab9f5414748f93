"""Molecules in files: SDF (bonds, charges, properties), extended XYZ and ASE's trajectories (elements, positions and
properties), CSV (identity and properties).

A property keeps its name, in which molflow puts who says so and in what unit: ``xtb_gap [eV]``.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ase
import ase.io
from rdkit import Chem, rdBase

from molflow.molecules.convert import Molecule, from_rdkit, sanitise
from molflow.writing import written_whole

VALID_FIELD = "valid"
_END_OF_RECORD = "$$$$"
_END_OF_MOLECULE = re.compile(r"^M  END", re.MULTILINE)
_BREAKS_TITLE = re.compile(r"^\$\$\$\$|^M  END|[\r\n]")
_BREAKS_FIELD_NAME = re.compile(r"^$|^_|[\r\n<>]")  # RDKit holds back names with an underscore in front
_BREAKS_FIELD_VALUE = re.compile(r"^(?:\$\$\$\$|>.*<|M  END|\n)|\n\Z|\r", re.MULTILINE)
_BREAKS_XYZ_NAME = re.compile(r"^$|^(?:Properties|Lattice|pbc)$|[\r\n=\"'\\]", re.IGNORECASE)
_COLUMNS = re.compile(r":[SRIL]:(\d+)", re.IGNORECASE)
MOST_COLUMNS = 1000
"""Numbers of one atom in an XYZ file."""


Molecules = Sequence[Molecule] | str | os.PathLike[str]


class Skipped(NamedTuple):
    """A record that could not be read: its place in the file (from 1), its title line, and why."""

    record: int
    name: str
    reason: str


def read(molecules: Molecules) -> tuple[list[Molecule], list[Skipped]]:
    """Molecules as given, or those of an SDF file with the records that could not be read."""
    if isinstance(molecules, str | os.PathLike):
        return read_sdf(molecules)
    return list(molecules), []


def write_sdf(path: str | os.PathLike[str], molecules: Sequence[Molecule], *, v3000: bool = False) -> None:
    """Write all molecules, broken ones too, with their properties and a field `valid` (1 or 0).

    V2000, or V3000 if wanted or if a molecule has more than 999 atoms or bonds.

    Bonds are written as generated, kekulised. Positions keep four decimals, which is all an SDF has. The file appears
    under its name only when it is complete.

    Raises:
        ValueError: a property's name or value cannot stand in an SDF, where it would become further fields or records:
            line breaks, "<" or ">" in the name or an underscore in front of it, a value with an empty line or one that
            starts with ">", "$$$$" or "M  END".
        OSError: the folder cannot be written to.
    """
    with (
        written_whole(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        Chem.SDWriter(file) as writer,
    ):
        writer.SetForceV3000(v3000)
        for molecule in molecules:
            for key, value in molecule.properties.items():
                if not _is_field(key, str(value)):
                    raise ValueError(f"property {key!r}: {value!r} cannot be written to an SDF")
            mol = molecule.to_rdkit()
            mol.SetProp(VALID_FIELD, str(int(molecule.is_valid)))
            writer.write(mol)


def read_sdf(path: str | os.PathLike[str]) -> tuple[list[Molecule], list[Skipped]]:
    """Read an SDF (V2000 or V3000) or a single MOL file, each record exactly as it stands, valid or not.

    A field that reads as a number becomes a float property, any other a string; the title line becomes "name". In the
    names of fields "<" and ">" become "‹" and "›".

    Returns:
        The molecules, and the records that were skipped because they are broken, have more than `MOST_ATOMS` atoms,
        implicit hydrogens, no 3D positions, or a bond that is not single, double, triple or aromatic.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or has no "M  END" line and so is not an SDF.
    """
    molecules, skipped = [], []
    for one in iterate_sdf(path):
        if isinstance(one, Skipped):
            skipped.append(one)
        else:
            molecules.append(one)
    return molecules, skipped


def iterate_sdf(path: str | os.PathLike[str]) -> Iterator[Molecule | Skipped]:
    """As `read_sdf`, one record after the other, for files of any size; what is wrong with the file as a whole is known
    only at its end."""
    number, ended = 0, False
    for number, record in enumerate(_records(Path(path)), start=1):
        ended = ended or bool(_END_OF_MOLECULE.search(record))
        name = record.split("\n", 1)[0].strip()
        try:
            one: Molecule | Skipped = _read_record(record, name)
        except ValueError as error:
            one = Skipped(number, name, str(error))
        yield one
    if not number:
        raise ValueError(f"{path} is empty")
    if not ended:
        raise ValueError(f"{path} is not an SDF file: it has no 'M  END' line")


def _records(path: Path) -> Iterator[str]:
    """The text of each record without its "$$$$" line; what follows the last of these, if it is not blank."""
    lines: list[str] = []
    with path.open(encoding="utf-8", errors="replace") as file:  # lines may end as anywhere
        for line in file:
            if line.startswith(_END_OF_RECORD):
                yield "".join(lines)
                lines = []
            else:
                lines.append(line)
    if "".join(lines).strip():
        yield "".join(lines)


def _read_record(record: str, name: str) -> Molecule:
    """One record without its "$$$$" line; ValueError with the reason if it is broken."""
    if len(_END_OF_MOLECULE.findall(record)) > 1:  # RDKit would read the first and say nothing of the others
        raise ValueError("several molecules, no '$$$$' line between them")
    supplier = Chem.SDMolSupplier()
    with rdBase.CaptureErrorLog() as log:
        supplier.SetData(record, sanitize=False, removeHs=False)
        mol = next(supplier, None)
    if mol is None:
        # RDKit says why in its log only, and quotes single bytes of multi-byte characters there.
        try:
            logged = re.search(r"ERROR: (?!moving to)(.*)", log.messages)
        except UnicodeDecodeError:
            logged = None
        raise ValueError(logged[1] if logged else "not a readable molecule")
    properties: dict[str, float | str] = {}
    for field in mol.GetPropNames():
        key, value = field.translate(_NAMED), mol.GetProp(field)
        if key == "name":
            properties[key] = " ".join(value.split())
        else:
            properties[key] = number_or_text(value)
        if not _is_field(key, str(properties[key])):
            raise ValueError(f"the field {key[:40]!r} has no empty line after it")
    if name:
        properties["name"] = name
    return replace(from_rdkit(mol), properties=properties)


_NAMED = str.maketrans("<>", "‹›")


def _is_field(key: str, value: str) -> bool:
    """Whether it can stand in an SDF, and be nothing else there."""
    if key == "name":
        return not _BREAKS_TITLE.search(value)
    return not (_BREAKS_FIELD_NAME.search(key) or _BREAKS_FIELD_VALUE.search(value))


def number_or_text(text: str) -> float | str:
    """A number as Python writes them, but for 1_000: that is a name."""
    try:
        return text if "_" in text else float(text)
    except ValueError:
        return text


def write_xyz(path: str | os.PathLike[str], molecules: Sequence[Molecule]) -> None:
    """Write one extended-XYZ frame a molecule, formal charges as `initial_charges`, properties in the comment line,
    which is a line: in text of several a space stands between them.

    Raises:
        ValueError: a property has a name that means something else there.
        OSError: the folder cannot be written to.
    """
    frames = []
    for molecule in molecules:
        atoms = molecule.to_ase()
        atoms.info.clear()
        for key, value in molecule.properties.items():
            if _BREAKS_XYZ_NAME.search(key):
                raise ValueError(f"property {key!r} cannot be written to an XYZ file")
            said = " ".join(value.split()).rstrip("\\") if isinstance(value, str) else value
            if said != "":  # ASE's reader takes what follows for the value of an empty one
                atoms.info[key] = said
        frames.append(atoms)
    _write_frames(Path(path), frames, "extxyz")


def read_xyz(path: str | os.PathLike[str]) -> list[ase.Atoms]:
    """Read all frames of an XYZ or extended-XYZ file. An XYZ file knows no bonds, so ASE atoms are what it holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or a frame cannot be read.
    """
    raw = _content(Path(path))
    with _readable(Path(path), "a readable XYZ file"):
        text = raw.decode("utf-8", errors="replace")
        _check_frames(text)
        return list(ase.io.iread(io.StringIO(text), index=":", format="extxyz"))


def _check_frames(text: str) -> None:
    """Raise ValueError where frames have fewer atoms than they say: ASE would look for them for ever."""
    lines = text.splitlines()
    place = 0
    while place < len(lines) and lines[place].strip():
        atoms, comment = int(lines[place]), lines[place + 1] if place + 1 < len(lines) else ""
        if not 0 <= atoms <= len(lines) - place - 2:
            raise ValueError(f"{lines[place].strip()[:20]} atoms are said to follow, and do not")
        if sum(map(int, _COLUMNS.findall(comment))) > MOST_COLUMNS:
            raise ValueError(f"more than {MOST_COLUMNS} numbers of an atom")
        place += 2 + atoms
        while place < len(lines) and lines[place].lstrip().startswith("VEC"):
            place += 1


def write_traj(path: str | os.PathLike[str], molecules: Sequence[Molecule]) -> None:
    """Write one frame a molecule of an ASE trajectory, charges and properties as `write_xyz`.

    Raises:
        OSError: the folder cannot be written to.
    """
    _write_frames(Path(path), [molecule.to_ase() for molecule in molecules], "traj")


def read_traj(path: str | os.PathLike[str]) -> list[ase.Atoms]:
    """Read all frames of an ASE trajectory; raises as `read_xyz`."""
    raw = _content(Path(path))
    with _readable(Path(path), "a readable ASE trajectory"):
        return list(ase.io.iread(io.BytesIO(raw), index=":", format="traj"))


def _write_frames(path: Path, frames: Sequence[ase.Atoms], form: str) -> None:
    with written_whole(path) as temporary:
        ase.io.write(temporary, frames, format=form)


def _content(path: Path) -> bytes:
    """ASE gets what is in the file and not its name, in which "@" and ".gz" would mean something to it."""
    content = path.read_bytes()
    if not content.strip():
        raise ValueError(f"{path} is empty")
    return content


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ASE's parsers let through whatever their string handling raises
        raise ValueError(f"{path} is not {what}: {' '.join(str(error).split())[:200]}") from error


def write_csv(path: str | os.PathLike[str], molecules: Sequence[Molecule]) -> None:
    """Write a line a molecule: name, SMILES (no stereochemistry), InChIKey (with that of the positions), properties.

    What a broken molecule cannot have stays empty; text that a spreadsheet would calculate is written as `cell` has it.

    Raises:
        OSError: the folder cannot be written to.
    """
    said = [{"name": "", "smiles": molecule.smiles or "", "inchikey": inchikey(molecule), **molecule.properties}
            for molecule in molecules]
    rows = [{cell(key): cell(value) for key, value in row.items()} for row in said]
    columns = dict.fromkeys(["name", "smiles", "inchikey", *(key for row in rows for key in row)])
    with written_whole(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def cell(value: Any) -> Any:
    """What stands in a CSV file for a value: of text that begins as spreadsheets' formulas do, ``=`` ``+`` ``-`` ``@``,
    the same with an apostrophe in front, by which they know text. Numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def inchikey(molecule: Molecule) -> str:
    """With the stereochemistry that the positions show; empty for a molecule that does not pass `sanitise`."""
    sanitised, _ = sanitise(molecule.to_rdkit())
    if sanitised is None:
        return ""
    with rdBase.BlockLogs():
        Chem.AssignStereochemistryFrom3D(sanitised)
        return Chem.MolToInchiKey(sanitised)
