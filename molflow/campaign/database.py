"""The campaign's database: ASE's, one row a molecule, in SQLite or PostgreSQL, through `ase.db` alone."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase.db.core import now
from ase.db.row import AtomsRow

from molflow import __version__
from molflow.campaign import lock
from molflow.campaign.plan import Batch, Record
from molflow.campaign.spec import Spec
from molflow.campaign.work import Result, Values, trusted
from molflow.extras import needed
from molflow.molecules.convert import Molecule
from molflow.nn.property import PROPERTIES
from molflow.verification import VERIFIED


class OtherCampaign(ValueError):
    """A database holds something else than the campaign that is to use it."""


class DatabaseError(OSError):
    """A database cannot be read or written."""


class NotOpened(DatabaseError, ValueError):
    """A database cannot be reached or made where the specification says."""


_IN_EVERY_ROW = {"target": int, "number": int, "status": str}


class Database:
    """A molecule is a row: its atoms at the geometry of the latest stage, and key-value pairs.

    ``key`` (name/target/number), ``target`` and ``number`` from 1, ``stage`` (design, xtb, dft: the last it went
    through), ``status`` (valid, invalid, duplicate, failed, or the latest verdict) with ``reason``, ``smiles``,
    ``inchikey``, ``geometry`` (generated, xtb, dft), ``target_P``, ``guide_P``, ``evaluator_P``, ``xtb_P``, ``dft_P``
    for the properties P, and plain ``gap``, ``mu`` and so on: DFT's where there is one, else the evaluator's. Beside
    them, as data: the ``bonds``, and the ``generated`` positions. The metadata hold the campaign and the units.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.where = _shown(spec)
        self._rows = _connect(spec.database)

    @classmethod
    @contextmanager
    def claimed(cls, spec: Spec) -> Iterator[Database]:
        """The campaign's database, made if there is none, with nobody else working on it.

        Raises:
            lock.Busy: another process works on it.
            OtherCampaign: it holds something else.
            NotOpened: it cannot be reached or made.
        """
        where, path = _shown(spec), Path(spec.database)
        embedded = "://" not in spec.database
        with ExitStack() as stack:
            with _in_plain_words(where, NotOpened):
                try:
                    stack.enter_context(lock.of_file(path) if embedded else lock.of_postgresql(spec.database, where))
                except OSError as error:
                    raise NotOpened(f"{where} cannot be made or locked: {error.strerror}") from None
                if embedded and not path.exists():
                    _make(path)
                database = cls(spec)
                database._claim()
            yield database

    @classmethod
    def there(cls, spec: Spec) -> Database | None:
        """To be read, whoever works on it; None if the campaign has not begun. Raises as `claimed`."""
        if "://" not in spec.database and not Path(spec.database).exists():
            return None
        with _in_plain_words(_shown(spec), NotOpened):
            database = cls(spec)
            return database if database._is_ours() else None

    def records(self) -> list[Record]:
        """All of them, in order of their places. Raises OtherCampaign where a row is none of ours."""
        with _in_plain_words(self.where):
            rows = self._rows.select(columns=["id", "ctime", "key_value_pairs"], include_data=False)
            records = [Record(row.id, row.ctime, row.key_value_pairs) for row in rows]
        for record in records:
            if any(not isinstance(record.values.get(key), kind) for key, kind in _IN_EVERY_ROW.items()):
                raise OtherCampaign(f"{self.where} holds a row, {record.id}, that is not a campaign's")
        return sorted(records, key=lambda record: record.place)

    def molecule(self, record: Record) -> Molecule:
        """At the geometry of the row, with the claims that verification compares."""
        row = self._row(record)
        return Molecule(row.positions, row.numbers.astype(np.int64), row.initial_charges.astype(np.int64),
                        np.asarray(row.data["bonds"], dtype=np.int64), dict(record.values))

    def add(self, batch: Batch, results: Sequence[Result]) -> None:
        """Store a batch, whole or not at all."""
        with self._transaction():
            for (target, number), result in zip(batch.places, results, strict=True):
                key = f"{self.spec.name}/{target}/{number}"
                values = {"key": key, "target": target, "number": number, "stage": "design", **result.values}
                data = {"bonds": result.molecule.bonds, "generated": result.molecule.positions}
                self._write(result.molecule, values, data, now(), None)

    def change(self, record: Record, stage: str, result: Result) -> None:
        """Store what a later stage found, all of it or nothing."""
        data = self._row(record).data
        with self._transaction():
            old = {key: value for key, value in record.values.items() if key != "reason"}
            self._write(result.molecule, {**old, "stage": stage, **result.values}, data, record.made, record.id)

    def mark(self, changes: Mapping[Record, Values]) -> None:
        """Store more key-value pairs of some records."""
        with self._transaction():
            for record, values in changes.items():
                self._rows.update(record.id, **values)

    def _row(self, record: Record) -> Any:
        with _in_plain_words(self.where):
            return self._rows.get(id=record.id)

    def _write(self, molecule: Molecule, values: Values, data: Mapping[str, Any], made: float, id: int | None) -> None:
        row: Any = AtomsRow(molecule.to_ase())
        # unique in the table: no molecule can come in twice, whatever happens to locks
        row.unique_id = f"{self.spec.digest[:16]}{values['target']:08x}{values['number']:08x}"
        row.ctime, row.user = made, os.environ.get("USER")
        self._rows.write(row, {**values, **trusted(values)}, data, id)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _in_plain_words(self.where), self._rows:
            connection = self._rows.connection
            if not hasattr(connection, "rollback"):  # to 0.11 ase-db-backends asks for it and has none for PostgreSQL
                connection.rollback = connection.close
            yield

    def _is_ours(self) -> bool:
        """Whether the campaign has begun here; False if nothing has. Raises OtherCampaign."""
        found = self._rows.metadata.get("molflow_campaign")
        if found is None:
            if self._rows.count():
                raise OtherCampaign(f"{self.where} holds other data than a campaign's: name another database")
            return False
        mine = self.spec.identity
        if strange := [key for key in sorted(mine | found) if mine.get(key) != found.get(key)]:
            theirs, ours = (side.get(strange[0]) for side in (found, mine))
            raise OtherCampaign(f"{self.where} holds another campaign, whose {strange[0]} is {theirs!r}, not {ours!r}: "
                                "name another database")
        return True

    def _claim(self) -> None:
        if not self._is_ours():
            self._rows.metadata = {"molflow_campaign": self.spec.identity, "molflow": __version__,
                                   "key_descriptions": _descriptions()}


def _shown(spec: Spec) -> str:
    """Where the database is."""
    return _without_password(spec.database)


def _without_password(text: str) -> str:
    """Text with the user and password of the URL in it left out."""
    return re.sub(r"//.*@", "//", text)


def _connect(database: str) -> Any:
    with needed():
        return ase.db.connect(database, use_lock_file=False)  # a file that outlives a killed process: see lock.py


def _make(path: Path) -> None:
    """An empty database, which appears when all its tables are there."""
    part = path.with_name(f".{path.stem}.part.db")
    part.unlink(missing_ok=True)
    try:
        _connect(str(part)).count()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _descriptions() -> dict[str, tuple[str, str, str]]:
    """What ASE's web page shows of a key: short and long description, unit."""
    who = {"target": "wanted", "guide": "guide", "evaluator": "evaluator", "xtb": "xTB", "dft": "DFT"}
    units = {name: unit for name, unit in VERIFIED.items() if name in PROPERTIES}
    found = {name: (name, f"{name}: DFT, else evaluator", unit) for name, unit in units.items()}
    found |= {f"{by}_{name}": (f"{name}, {said}", f"{name}, {said}", unit)
              for by, said in who.items() for name, unit in VERIFIED.items()
              if name in units or by in ("xtb", "dft")}
    return found | {f"{by}_{name}": (f"{name}, {who[by]}", what, unit) for by in ("xtb", "dft")
                    for name, what, unit in (("strain", "energy lost on relaxation", "kcal/mol"),
                                             ("rmsd", "how far the atoms moved on relaxation", "Å"),
                                             ("seconds", "time the calculation took", "s"))}


@contextmanager
def _in_plain_words(where: str, kind: type[DatabaseError] = DatabaseError) -> Iterator[None]:
    """A DatabaseError, a sentence with the database's name, for what either program raises."""
    try:
        yield
    except sqlite3.Error as error:
        raise kind(f"{where}: {error}") from None
    except Exception as error:
        # psycopg2 comes with an extra and would have to be there to be named in an `except`
        if type(error).__module__.split(".")[0] != "psycopg2":
            raise
        said = _without_password(" ".join(str(error).split()))  # libpq repeats a URL that it cannot read
        raise kind(f"{where}: {said or type(error).__name__}") from None
