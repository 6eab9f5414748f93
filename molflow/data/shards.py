"""Preparing a data set that takes long or is large: in parts that stay, so that a stopped run goes on where it was."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from molflow.data.store import DataError, MoleculeStore
from molflow.parallel import Processes
from molflow.writing import written_whole

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
            _write(file, wanted)
        elif file.read_text() != wanted:
            raise DataError(f"{folder} was begun with other settings, {file.read_text()}: choose another --out, or "
                            "remove it")

    def store_file(self, number: int) -> Path:
        return self.folder / f"{number:05}.safetensors"

    def note_file(self, number: int) -> Path:
        return self.folder / f"{number:05}.json"

    def numbers(self) -> list[int]:
        """Of the parts that are there, ascending."""
        return sorted(int(file.stem) for file in self.folder.glob("[0-9]*.safetensors"))

    def make(self, chunks: Iterable[Chunk], work: Callable[[Chunk], Made], *, workers: int, total: int | None,
             what: str, first: int = 0) -> int:
        """Turn each chunk into a part, those that are there left out; the number after the last.

        Args:
            chunks: of what is to be read, always the same; no more of them are drawn than can be worked on.
            work: what can be pickled, run in ``workers`` processes of one thread each.
            total: entries of all chunks together, if that is known.
            first: number of the first part.
        Raises:
            DataError: a process ended without a result.
        """
        number = first - 1
        with (tqdm(total=total, desc=what, unit="mol", mininterval=2) as bar,
              Processes(workers) as pool):
            waiting: dict[Future[Made], tuple[int, int]] = {}

            def collect(most: int) -> None:
                while len(waiting) > most:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        place, count = waiting.pop(future)
                        self._keep(place, *future.result())
                        bar.update(count)

            try:
                for number, chunk in enumerate(chunks, first):
                    if self.store_file(number).exists():
                        bar.update(len(chunk))
                        bar.initial += len(chunk)  # says nothing about the speed
                        continue
                    waiting[pool.submit(work, chunk)] = number, len(chunk)
                    collect(2 * workers)
                collect(0)
            except BrokenProcessPool:
                raise DataError("a process ended without a result, for lack of memory or over a damaged file: run the "
                                "same command again to go on, with fewer --workers") from None
            finally:
                pool.shutdown(cancel_futures=True)
        return number + 1

    def refused(self, numbers: Iterable[int]) -> Counter[str]:
        """What the parts of these numbers left out, by reason."""
        return sum((Counter(json.loads(self.note_file(i).read_text())) for i in numbers), Counter())

    def join(self, count: int, out: Path) -> None:
        """The first ``count`` parts as one store at ``out``, one of them in memory at a time."""
        join([self.store_file(i) for i in range(count)], out)

    def _keep(self, number: int, store: MoleculeStore, refused: Counter[str]) -> None:
        _write(self.note_file(number), json.dumps(refused))
        store.save(self.store_file(number))  # last: that it is there means that all is


def join(parts: Sequence[Path], out: Path) -> None:
    """`MoleculeStore.cat` of files, for more than fits into memory: written tensor by tensor, part by part, as
    safetensors lays them out (an 8-byte length, a JSON header, the raw numbers). Raises DataError."""
    kinds: list[dict[str, tuple[str, list[int], int]]] = []
    described = []
    for path in parts:
        with _opened(path) as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            kinds.append({key: (one.get_dtype(), one.get_shape(), _BYTES[one.get_dtype()])
                          for key, one in slices.items()})
            described.append(file.metadata())
    if any(one != described[0] for one in described[1:]) or any(one.keys() != kinds[0].keys() for one in kinds):
        raise DataError(f"the parts of {out} are not of one kind: remove them")
    header: dict[str, Any] = {"__metadata__": dict(sorted(described[0].items()))}  # the same bytes every time
    end = 0
    for key in sorted(kinds[0], key=lambda key: (-kinds[0][key][2], key)):  # the widest numbers first: all aligned
        dtype, (_, *rest), size = kinds[0][key]
        length = sum(one[key][1][0] for one in kinds)
        if key.endswith("_ptr"):
            length -= len(parts) - 1  # each part begins at 0, the whole only once
        header[key] = {"dtype": dtype, "shape": [length, *rest],
                       "data_offsets": [end, end := end + length * math.prod(rest) * size]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with written_whole(out) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key in list(header)[1:]:
            start = 0
            for number, path in enumerate(parts):
                with _opened(path) as part:
                    values = part.get_tensor(key)
                if key.endswith("_ptr"):
                    values, start = values[number > 0 :] + start, start + int(values[-1])
                file.write(np.ascontiguousarray(values).tobytes())


_BYTES = {"F32": 4, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it and run the same command again") from None


def _write(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text)
