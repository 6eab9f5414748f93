"""QM9 (Ramakrishnan et al., Sci. Data 1, 140022, 2014) from the PyPI package ``qm9pack`` to one compact file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from rdkit import Chem, RDLogger

from molflow.data.records import Record, pack
from molflow.data.store import DataError, MoleculeStore

EV_PER_HARTREE = 27.2114  # the factor behind the field's published tables
EXPECTED = 130_831

# our name: (column, unit, factor to that unit)
PROPERTIES: dict[str, tuple[str, str, float]] = {
    "mu": ("Dipole_debye", "D", 1.0),
    "alpha": ("Polarizability_bohr3", "Bohr^3", 1.0),
    "homo": ("HOMO_au", "eV", EV_PER_HARTREE),
    "lumo": ("LUMO_au", "eV", EV_PER_HARTREE),
    "gap": ("HOMO_LUMO_gap_au", "eV", EV_PER_HARTREE),
    "r2": ("R2_bohr2", "Bohr^2", 1.0),
    "zpve": ("ZPVE_au", "eV", EV_PER_HARTREE),
    "u0": ("InternalEnergy_0K_au", "eV", EV_PER_HARTREE),
    "u298": ("InternalEnergy_298K_au", "eV", EV_PER_HARTREE),
    "h298": ("Enthalphy_298K_au", "eV", EV_PER_HARTREE),
    "g298": ("GibbsFreeEnergy_298K_au", "eV", EV_PER_HARTREE),
    "cv": ("Heatcapacity_Cv_cal_mol_K", "cal/(mol K)", 1.0),
}
NUMBER = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
# No covalent bond of these elements is longer; QM9's longest C-C bond is 1.8 Å, its longest X-H 1.2 Å.
LONGEST_BOND, LONGEST_HYDROGEN_BOND = 1.95, 1.35


def prepare(out: Path, *, source: Path | None = None, workers: int = 2, limit: int | None = None) -> MoleculeStore:
    """Read every molecule, assign bonds and charges, write ``out`` and return what was written.

    Args:
        source: folder with qm9pack's CSV files; by default the installed package's.
        limit: read only this many molecules (for tests).
    Raises:
        DataError: a file is missing, truncated or has other columns.
    """
    import pandas as pd
    from tqdm import tqdm

    folder = source or _package_folder()
    columns = ["Index", "SMILES", "Elements", "XYZ_Ang", *(column for column, _, _ in PROPERTIES.values())]
    frames = []
    for part in ("qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv"):
        path = folder / part
        if not path.is_file():
            raise DataError(f"{path} is missing: reinstall qm9pack (`pip install --force-reinstall qm9pack`)")
        try:
            frames.append(pd.read_csv(path, usecols=columns))
        except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is damaged ({error}): reinstall qm9pack") from None
    # The field's "file order" is that of QM9's own numbering; the package's parts are shuffled.
    table = pd.concat(frames)
    try:
        table = table.astype({"Index": int, **{column: float for column, _, _ in PROPERTIES.values()}})
    except ValueError as error:
        raise DataError(f"{folder} is damaged ({error}): reinstall qm9pack") from None
    table = table.drop_duplicates("Index").dropna().sort_values("Index", ignore_index=True)
    if len(table) != EXPECTED:
        raise DataError(f"{folder} holds {len(table)} complete molecules, expected {EXPECTED}: reinstall qm9pack")
    table = table.head(limit) if limit else table

    rows = list(zip(table["SMILES"], table["Elements"], table["XYZ_Ang"], strict=True))
    chunks = [rows[i : i + 500] for i in range(0, len(rows), 500)]
    records: list[Record] = []
    try:
        with tqdm(total=len(rows), desc="QM9", unit="mol") as bar:
            for done in _map(chunks, workers):
                records += done
                bar.update(len(done))
    except ValueError as error:
        raise DataError(f"{folder} is damaged ({error}): reinstall qm9pack") from None

    values = np.stack([table[column].to_numpy(float) * factor for column, _, factor in PROPERTIES.values()], 1)
    store = pack(records, values, table["Index"].to_numpy(np.int32), names=tuple(PROPERTIES),
                 units=tuple(unit for _, unit, _ in PROPERTIES.values()),
                 source=f"qm9pack {_version()} (PyPI, MIT), QM9 without the 3,054 uncharacterised molecules")
    store.save(out)
    return store


def flaws(store: MoleculeStore) -> list[int]:
    """QM9 numbers of the molecules for which SMILES and geometry disagree (kept, without bonds)."""
    return store.index[~store.bonded].tolist()


def _package_folder() -> Path:
    spec = importlib.util.find_spec("qm9pack")  # not imported: its loader needs pkg_resources
    if spec is None or spec.origin is None:
        raise DataError("the QM9 source is not installed: run `pip install 'molflow[train]'` (package qm9pack)")
    return Path(spec.origin).parent / "data"


def _map(chunks: list[list[tuple[str, str, str]]], workers: int) -> Iterator[list[Record]]:
    if workers <= 1:
        yield from map(_read_chunk, chunks)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_read_chunk, chunks)


def _read_chunk(rows: list[tuple[str, str, str]]) -> list[Record]:
    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's way of saying that text was left over
        return [read_record(*row) for row in rows]


def read_record(smiles: str, elements: str, xyz: str) -> Record:
    """Parse one row. Raises ValueError where numbers or elements cannot be read."""
    symbols = elements.strip("[]").replace("'", "").replace(" ", "").split(",")
    try:
        numbers = np.array([NUMBER[symbol] for symbol in symbols])
    except KeyError as error:
        raise ValueError(f"element {error} in {smiles}") from None
    text = xyz.replace("*^", "e").translate(str.maketrans("", "", "[]"))
    try:
        flat = np.fromstring(text, sep=",")
    except (DeprecationWarning, ValueError):  # the one in older numpy, the other from 2.4 on
        raise ValueError(f"coordinates of {smiles}") from None
    if flat.size != 3 * len(numbers) or not np.isfinite(flat).all():
        raise ValueError(f"coordinates of {smiles}")
    positions = flat.reshape(-1, 3)
    try:
        charges, bonds = assign_bonds(smiles, numbers, positions)
        return Record(positions, numbers, charges, bonds, None)
    except ValueError as error:
        return Record(positions, numbers, np.zeros_like(numbers), np.zeros((0, 3), np.int64), str(error))


def assign_bonds(smiles: str, numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kekulised bonds (b, 3) as (i, j, order) and formal charges (n,), from SMILES and geometry together.

    The SMILES' heavy atoms stand in the order of the coordinates' heavy atoms; each hydrogen belongs to
    the nearest heavy atom. Guessing orders from distances alone fails on 5 % of QM9 (strained rings).

    Raises:
        ValueError: elements, hydrogen counts or bond lengths do not agree.
    """
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError("SMILES not understood")
    Chem.Kekulize(mol, clearAromaticFlags=True)
    heavy = np.flatnonzero(numbers != 1)
    hydrogens = np.flatnonzero(numbers == 1)
    if [atom.GetAtomicNum() for atom in mol.GetAtoms()] != numbers[heavy].tolist():
        raise ValueError("elements of SMILES and coordinates differ")
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    owner = heavy[distance[np.ix_(hydrogens, heavy)].argmin(1)] if len(hydrogens) else hydrogens
    if [atom.GetTotalNumHs() for atom in mol.GetAtoms()] != [int((owner == atom).sum()) for atom in heavy]:
        raise ValueError("hydrogen counts of SMILES and coordinates differ")
    skeleton = [(heavy[bond.GetBeginAtomIdx()], heavy[bond.GetEndAtomIdx()], int(bond.GetBondTypeAsDouble()))
                for bond in mol.GetBonds()]
    bonds = np.array(skeleton + [(o, h, 1) for o, h in zip(owner, hydrogens, strict=True)], np.int64).reshape(-1, 3)
    limit = np.where((numbers[bonds[:, :2]] == 1).any(1), LONGEST_HYDROGEN_BOND, LONGEST_BOND)
    if (distance[bonds[:, 0], bonds[:, 1]] > limit).any():
        raise ValueError("a bond of the SMILES is too long in the geometry")
    charges = np.zeros_like(numbers)
    charges[heavy] = [atom.GetFormalCharge() for atom in mol.GetAtoms()]
    return charges, bonds


def _version() -> str:
    try:
        return importlib.metadata.version("qm9pack")
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
