"""A run's folder read back. Its files may have been edited, damaged, or come from somebody else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from molflow.molecules.convert import Molecule
from molflow.molecules.io import number_or_text, read_sdf
from molflow.nn.property import UNITS
from molflow.nn.weights import MODELS
from molflow.report.figures import Fields
from molflow.report.trajectory import read_trajectory
from molflow.targets import Goal, goal

FORMAT = "molflow-run-1"
_NEEDED: dict[str, Any] = {"time": str, "molflow": str, "settings": dict, "warnings": list, "machine": dict}
_NEEDED_SETTINGS: dict[str, Any] = {"targets": dict, "n": int, "seed": int, "device": str, "budget": dict,
                                    "seconds": int | float, "weights": dict}
_MAY_BE: dict[str, Any] = {"model": str, "fragment": str | None, "lead": str | None, "verify": str | None,
                           "similarity": int | float | None}
T = TypeVar("T")


@dataclass(frozen=True)
class SavedRun:
    """A run as its folder has it.

    Attributes:
        record: ``run.json``.
        targets: what was asked for.
        fields: of each of n molecules: its row of ``results.csv`` and, where that has nothing, its SD fields.
        molecules: n of them, None for a record that no molecule can be read from (positions that are not finite).
        sdf: ``molecules.sdf`` as it is.
        trajectory: frames of one molecule; empty if the folder has none.
        course: ``optimisation.png`` as it is; empty if the folder has none.
    """

    record: dict[str, Any]
    targets: dict[str, Goal]
    fields: list[Fields]
    molecules: list[Molecule | None]
    sdf: bytes
    trajectory: list[Molecule]
    course: bytes

    @property
    def units(self) -> dict[str, str]:
        """Of the properties that were asked for."""
        return UNITS | self.record.get("units", {})

    @property
    def own(self) -> dict[str, str]:
        """The user's own properties, and the functions that say what they are."""
        return dict(self.record["settings"].get("properties", {}))


def goals(targets: dict[str, Any]) -> dict[str, Goal]:
    """Targets as ``run.json`` has them: numbers, or text. Raises ValueError."""
    if not all(isinstance(wanted, int | float | str) for wanted in targets.values()):
        raise ValueError("the targets are neither numbers nor text")
    return {name: goal(name, str(wanted), {name: ""}) for name, wanted in targets.items()}


def is_run(folder: Path) -> bool:
    """Has a ``run.json`` of molflow's."""
    try:
        return json.loads((folder / "run.json").read_bytes())["format"] == FORMAT
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def read_run(folder: Path) -> SavedRun:
    """Read what ``save`` has written.

    Raises:
        FileNotFoundError: there is no such folder, or a file is missing from it.
        ValueError: it is not a run of molflow, or a file is damaged or belongs to another run.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not is_run(folder):
        raise ValueError(f"{folder} is not a run of molflow: it has no run.json that says so")
    for name in ("molecules.sdf", "results.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a whole run: it has no {name}")
    record = _read(folder / "run.json", _record)
    molecules = _read(folder / "molecules.sdf", _molecules)
    rows = _read(folder / "results.csv", _rows)
    if len(rows) != len(molecules):
        raise ValueError(f"{folder} holds files of different runs: results.csv has {len(rows)} molecules and "
                         f"molecules.sdf {len(molecules)}")
    fields: list[Fields] = [{**(molecule.properties if molecule else {}), **row} for molecule, row in
                            zip(molecules, rows, strict=True)]
    trajectory, course = folder / "trajectory.xyz", folder / "optimisation.png"
    frames = _read(trajectory, read_trajectory) if trajectory.is_file() else []
    if frames and frames[0].properties["molecule"] not in range(1, len(molecules) + 1):
        raise ValueError(f"{trajectory} is damaged: there is no molecule {frames[0].properties['molecule']:g}")
    return SavedRun(record, goals(record["settings"]["targets"]), fields,
                    molecules, (folder / "molecules.sdf").read_bytes(), frames,
                    course.read_bytes() if course.is_file() else b"")


def _read(path: Path, reader: Callable[[Path], T]) -> T:
    try:
        return reader(path)
    except (ValueError, KeyError, TypeError, csv.Error, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None


def _record(path: Path) -> dict[str, Any]:
    text = path.read_bytes().decode("utf-8")
    record = json.loads(text)
    json.dumps(record, ensure_ascii=False).encode()  # half a character is none
    for part, needed in ((record, _NEEDED), (record["settings"], _NEEDED_SETTINGS)):
        for key, kind in needed.items():
            if key not in part:
                raise ValueError(f"it says nothing of {key}")
            if not isinstance(part[key], kind):
                raise ValueError(f"{key} cannot be {str(part[key])[:40]!r}")
    settings, targets = record["settings"], record["settings"]["targets"]
    for key, kind in _MAY_BE.items():
        if key in settings and not isinstance(settings[key], kind):
            raise ValueError(f"{key} cannot be {str(settings[key])[:40]!r}")
    if settings.get("lead") is not None and settings.get("similarity") is None:
        raise ValueError("it says nothing of similarity")
    if settings.get("model", "qm9") not in MODELS:
        raise ValueError(f"there is no model {settings['model'][:40]!r}")
    if not targets:
        raise ValueError("it has no targets")
    goals(targets)
    for what, named in (("units", record.get("units", {})), ("properties", record["settings"].get("properties", {}))):
        if not (isinstance(named, dict) and all(isinstance(text, str) for text in named.values())):
            raise ValueError(f"{what} cannot be {str(named)[:40]!r}")
    if not all(isinstance(file, dict) and {"file", "sha256"} <= set(file) for file in
               record["settings"]["weights"].values()):
        raise ValueError("the weights are not files with their sha256")
    return record


def _molecules(path: Path) -> list[Molecule | None]:
    """In the order of the file, None where a record cannot be read."""
    read, skipped = read_sdf(path)
    molecules: list[Molecule | None] = list(read)
    for broken in skipped:
        molecules.insert(broken.record - 1, None)
    return molecules


def _rows(path: Path) -> list[dict[str, float | str]]:
    """Numbers where the text is one; what is empty is left out."""
    text = path.read_text(encoding="utf-8")
    return [{key: _value(value) for key, value in row.items() if value} for row in
            csv.DictReader(io.StringIO(text, newline=""), restval="", restkey="", strict=True)]


def _value(text: str | list[str]) -> float | str:
    if isinstance(text, list):
        raise ValueError("a row is longer than the first")
    return number_or_text(text)
