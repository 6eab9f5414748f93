"""Molecules in files: SDF (bonds, charges, properties), extended XYZ and ASE's trajectories (elements, positions and
properties), CSV (identity and properties).

A property keeps its name, in which molflow puts who says so and in what unit: ``xtb_gap [eV]``.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import ase
import ase.io
from rdkit import Chem, rdBase

from molflow.molecules.convert import Molecule, from_rdkit, sanitise
from molflow.writing import written_whole

VALID_FIELD = "valid"
_END_OF_RECORD = re.compile(r"^\$\$\$\$.*\n?", re.MULTILINE)
_END_OF_MOLECULE = re.compile(r"^M  END", re.MULTILINE)
_BREAKS_FIELD_NAME = re.compile(r"^$|^_|[\r\n<>]")  # RDKit holds back names with an underscore in front
_BREAKS_FIELD_VALUE = re.compile(r"^\$\$\$\$|^>|[\r\n]")


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
        ValueError: a property's name or value cannot stand in an SDF: line breaks, "<" or ">" in the name or an
            underscore in front of it, a value that starts with ">" or "$$$$".
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
                if _BREAKS_FIELD_NAME.search(key) or _BREAKS_FIELD_VALUE.search(str(value)):
                    raise ValueError(f"property {key!r}: {value!r} cannot be written to an SDF")
            mol = molecule.to_rdkit()
            mol.SetProp(VALID_FIELD, str(int(molecule.is_valid)))
            writer.write(mol)


def read_sdf(path: str | os.PathLike[str]) -> tuple[list[Molecule], list[Skipped]]:
    """Read an SDF (V2000 or V3000) or a single MOL file, each record exactly as it stands, valid or not.

    A field that reads as a number becomes a float property, any other a string; the title line becomes "name".

    Returns:
        The molecules, and the records that were skipped because they are broken, have implicit hydrogens, no 3D
        positions, or a bond that is not single, double, triple or aromatic.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or has no "M  END" line and so is not an SDF.
    """
    text = Path(path).read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
    if not text.strip():
        raise ValueError(f"{path} is empty")
    if not _END_OF_MOLECULE.search(text):
        raise ValueError(f"{path} is not an SDF file: it has no 'M  END' line")
    records = _END_OF_RECORD.split(text)
    if not records[-1].strip():
        records.pop()
    molecules, skipped = [], []
    for number, record in enumerate(records, start=1):
        name = record.split("\n", 1)[0].strip()
        try:
            molecules.append(_read_record(record, name))
        except ValueError as error:
            skipped.append(Skipped(number, name, str(error)))
    return molecules, skipped


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
    properties: dict[str, float | str] = {
        key: _number_or_text(mol.GetProp(key)) for key in mol.GetPropNames()
    }
    if name:
        properties["name"] = name
    return replace(from_rdkit(mol), properties=properties)


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def write_xyz(path: str | os.PathLike[str], molecules: Sequence[Molecule]) -> None:
    """Write one extended-XYZ frame a molecule, formal charges as `initial_charges`, properties in the comment line.

    Raises:
        OSError: the folder cannot be written to.
    """
    _write_frames(Path(path), molecules, "extxyz")


def read_xyz(path: str | os.PathLike[str]) -> list[ase.Atoms]:
    """Read all frames of an XYZ or extended-XYZ file. An XYZ file knows no bonds, so ASE atoms are what it holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or a frame cannot be read.
    """
    return _read_frames(Path(path), "extxyz", "a readable XYZ file")


def write_traj(path: str | os.PathLike[str], molecules: Sequence[Molecule]) -> None:
    """Write one frame a molecule of an ASE trajectory, charges and properties as `write_xyz`.

    Raises:
        OSError: the folder cannot be written to.
    """
    _write_frames(Path(path), molecules, "traj")


def read_traj(path: str | os.PathLike[str]) -> list[ase.Atoms]:
    """Read all frames of an ASE trajectory; raises as `read_xyz`."""
    return _read_frames(Path(path), "traj", "a readable ASE trajectory")


def _write_frames(path: Path, molecules: Sequence[Molecule], form: str) -> None:
    with written_whole(path) as temporary:
        ase.io.write(temporary, [molecule.to_ase() for molecule in molecules], format=form)


def _read_frames(path: Path, form: str, what: str) -> list[ase.Atoms]:
    if not path.read_bytes().strip():
        raise ValueError(f"{path} is empty")
    try:
        return list(ase.io.iread(path, index=":", format=form))
    except Exception as error:  # ASE's parsers let through whatever their string handling raises
        raise ValueError(f"{path} is not {what}: {error}") from error


def write_csv(path: str | os.PathLike[str], molecules: Sequence[Molecule]) -> None:
    """Write a line a molecule: name, SMILES (no stereochemistry), InChIKey (with that of the positions), properties.

    What a broken molecule cannot have stays empty.

    Raises:
        OSError: the folder cannot be written to.
    """
    rows = [{"name": "", "smiles": molecule.smiles or "", "inchikey": inchikey(molecule), **molecule.properties}
            for molecule in molecules]
    columns = dict.fromkeys(["name", "smiles", "inchikey", *(key for row in rows for key in row)])
    with written_whole(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def inchikey(molecule: Molecule) -> str:
    """With the stereochemistry that the positions show; empty for a molecule that does not pass `sanitise`."""
    sanitised, _ = sanitise(molecule.to_rdkit())
    if sanitised is None:
        return ""
    with rdBase.BlockLogs():
        Chem.AssignStereochemistryFrom3D(sanitised)
        return Chem.MolToInchiKey(sanitised)
