"""Whether files are what their names say, to the end."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from matplotlib.image import imread
from safetensors import safe_open

from molflow.molecules.io import read_sdf, read_xyz

LOGS = "metrics.csv",
"""Which grow, and of which a kill may take the end."""


def not_whole(folder: Path) -> list[str]:
    """Files under final names in a folder that cannot be read, or end too early."""
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))
            if path.suffix in READERS and path.name not in LOGS and not is_temporary(path, folder) and not _reads(path)]


def is_temporary(path: Path, folder: Path) -> bool:
    """Whether a name inside ``folder`` is hidden, or that of something that is being written."""
    return any(part.startswith(".") or ".part" in Path(part).suffixes for part in path.relative_to(folder).parts)


def _reads(path: Path) -> bool:
    try:
        READERS[path.suffix](path)
    except Exception as error:  # whatever a library raises of a broken file
        print(f"{path.name}: {error}", file=sys.stderr)
        return False
    return True


def _tensors(path: Path) -> None:
    with safe_open(path, "np") as file:
        for key in file.keys():  # noqa: SIM118
            file.get_tensor(key)


def _sdf(path: Path) -> None:
    _, skipped = read_sdf(path)
    if skipped or not path.read_text().endswith("$$$$\n"):
        raise ValueError("ends in the middle of a molecule")


def _csv(path: Path) -> None:
    with path.open(newline="") as file:
        if len({len(row) for row in csv.reader(file, strict=True)}) > 1 or not path.read_text().endswith("\n"):
            raise ValueError("ends in the middle of a row")


def _page(path: Path) -> None:
    if not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("ends in the middle of the page")


def _database(path: Path) -> None:
    """As the next process finds it: with its journal, which is played back; of a copy, to leave that to the next."""
    with TemporaryDirectory() as scratch:
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy(file, scratch)
        with closing(sqlite3.connect(Path(scratch) / path.name)) as database:
            if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise ValueError("is corrupt")


READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": _tensors, ".json": lambda path: json.loads(path.read_text()), ".sdf": _sdf, ".csv": _csv,
    ".xyz": read_xyz, ".png": imread, ".html": _page, ".db": _database,
    ".ckpt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
}
