"""Preparing a data set that takes long or is large: in parts that stay, so that a stopped run goes on where it was."""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import safe_open
from tqdm import tqdm

from molflow.data.store import FORMAT, DataError, MoleculeStore
from molflow.parallel import start_alone

Chunk = TypeVar("Chunk", bound=Sequence)
Made = tuple[MoleculeStore, Counter[str]]
"""The molecules of a part, and how many were refused for each reason."""


class Shards:
    """A folder of parts, each a `MoleculeStore` and a note of what was refused.

    Args:
        folder: made if it is not there.
        settings: what all parts must have been made with.
    Raises:
        DataError: the folder was made with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        file, wanted = folder / "settings.json", json.dumps(settings)
        if not file.exists():
            _replace(file, wanted)
        elif file.read_text() != wanted:
            raise DataError(f"{folder} was begun with other settings, {file.read_text()}: choose another --out, or "
                            "remove it")

    def store_file(self, number: int) -> Path:
        return self.folder / f"{number:05}.safetensors"

    def note_file(self, number: int) -> Path:
        return self.folder / f"{number:05}.json"

    def make(self, chunks: Iterable[Chunk], work: Callable[[Chunk], Made], *, workers: int, total: int | None,
             what: str) -> int:
        """Turn each chunk into a part, those that are there left out; how many parts there are.

        Args:
            chunks: of what is to be read, always the same; no more of them are drawn than can be worked on.
            work: what can be pickled, run in ``workers`` processes of one thread each.
            total: entries of all chunks together, if that is known.
        Raises:
            DataError: a process ended without a result.
        """
        number = -1
        with (tqdm(total=total, desc=what, unit="mol", mininterval=2) as bar,
              ProcessPoolExecutor(workers, get_context("spawn"), start_alone) as pool):
            waiting: dict[Future[Made], tuple[int, int]] = {}

            def collect(most: int) -> None:
                while len(waiting) > most:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        place, count = waiting.pop(future)
                        self._keep(place, *future.result())
                        bar.update(count)

            try:
                for number, chunk in enumerate(chunks):
                    if self.store_file(number).exists():
                        bar.update(len(chunk))
                        bar.initial += len(chunk)  # says nothing about the speed
                        continue
                    waiting[pool.submit(work, chunk)] = number, len(chunk)
                    collect(2 * workers)
                collect(0)
            except BrokenProcessPool:
                raise DataError("a process ended without a result, perhaps for lack of memory: run the same command "
                                "again to go on, with fewer --workers") from None
        return number + 1

    def refused(self, count: int) -> Counter[str]:
        """What the first ``count`` parts left out, by reason."""
        return sum((Counter(json.loads(self.note_file(i).read_text())) for i in range(count)), Counter())

    def join(self, count: int, out: Path) -> None:
        """The first ``count`` parts as one store at ``out``, one of them in memory at a time."""
        join([self.store_file(i) for i in range(count)], out)

    def _keep(self, number: int, store: MoleculeStore, refused: Counter[str]) -> None:
        _replace(self.note_file(number), json.dumps(refused))
        store.save(self.store_file(number))  # last: that it is there means that all is


def join(parts: Sequence[Path], out: Path) -> None:
    """`MoleculeStore.cat` of files, for more than fits into memory: written tensor by tensor as safetensors lays them
    out (an 8-byte length, a JSON header, the raw numbers)."""
    stores = [MoleculeStore.load(path) for path in parts]  # mapped, not read
    if len({(store.names, store.units, store.source) for store in stores}) != 1:
        raise DataError(f"the parts of {out} are not of one kind, or there are none: remove them")
    with safe_open(parts[0], framework="np") as file:
        kinds = {key: (file.get_slice(key).get_dtype(), file.get_slice(key).get_shape()[1:]) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    # every molecule has one end in a _ptr, and the first of them a beginning
    lengths = {key: key.endswith("_ptr") + sum(len(getattr(store, key)) - key.endswith("_ptr") for store in stores)
               for key in kinds}
    header: dict[str, Any] = {"__metadata__": metadata | {"format": FORMAT}}
    end = 0
    # of one alignment after another, the widest numbers first
    for key in sorted(kinds, key=lambda key: (-getattr(stores[0], key).element_size(), key)):
        dtype, rest = kinds[key]
        size = lengths[key] * int(np.prod(rest, dtype=int)) * getattr(stores[0], key).element_size()
        header[key] = {"dtype": dtype, "shape": [lengths[key], *rest], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = out.with_name(out.name + ".part")
    try:
        with partial.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for key in list(header)[1:]:
                start = 0
                for number, store in enumerate(stores):
                    values = getattr(store, key).numpy()
                    if key.endswith("_ptr"):
                        values, start = values[number > 0 :] + start, start + int(values[-1])
                    file.write(np.ascontiguousarray(values).data)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)
