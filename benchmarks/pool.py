"""Work on many molecules at once: a process a core, a thread a process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

Given = TypeVar("Given")
Made = TypeVar("Made")


@contextmanager
def processes() -> Iterator[Executor]:
    """Spawned, not forked: a fork of a process whose libraries have threads may hang. They start with the work."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn"), _start) as pool:
        yield pool


def spread(pool: Executor, function: Callable[[Given], Made], items: Sequence[Given], what: str,
           chunk: int = 1) -> list[Made]:
    """``[function(item) for item in items]``, ``chunk`` of them sent at a time; ``what`` stands by the bar."""
    return list(tqdm(pool.map(function, items, chunksize=chunk), total=len(items), desc=what))


def _start() -> None:
    """One thread, and no word on every single broken molecule from RDKit and PoseBusters."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before any library is there to read it
    from rdkit import rdBase

    rdBase.LogToPythonLogger()  # RDKit's own switches are turned on again by PoseBusters
    for name in ("rdkit", "posebusters"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
