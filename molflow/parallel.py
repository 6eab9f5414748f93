"""Many calculations: a process a core, a thread a process, and none that costs the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import NamedTuple, TypeVar

Made = TypeVar("Made")


class Crash(NamedTuple):
    """In place of a result: the process ended without one, or the job raised; ``why`` in one line."""

    why: str


def spread(jobs: Sequence[Callable[[], Made]], workers: int | None = None,
           tell: Callable[[float], None] | None = None) -> list[Made | Crash]:
    """``[job() for job in jobs]``, a `Crash` where a job raised or took its process with it.

    Processes are spawned, not forked: a fork of a process whose libraries have threads may hang. A script that calls
    this must therefore be one that can be imported (``if __name__ == "__main__":``).

    Args:
        jobs: what can be pickled, such as partial functions.
        workers: processes; as many as there are cores by default.
        tell: called with the share that is done.
    """
    most = max(1, min(workers or len(os.sched_getaffinity(0)), len(jobs)))
    done: dict[int, Made | Crash] = {}
    while waiting := [i for i in range(len(jobs)) if i not in done]:
        # A process that dies breaks its pool. It was one of those at work: each of them gets a pool of its own.
        for i in _work(jobs, waiting, most, done, tell):
            if _work(jobs, [i], 1, done, tell):
                done[i] = Crash("its process ended")
    return [done[i] for i in range(len(jobs))]


def _work(jobs: Sequence[Callable[[], Made]], wanted: Sequence[int], processes: int, done: dict[int, Made | Crash],
          tell: Callable[[float], None] | None) -> list[int]:
    """Put results into ``done`` until all wanted are there or a process has died; those that were at work then."""
    queue = iter(wanted)
    with ProcessPoolExecutor(processes, get_context("spawn"), start_alone) as pool:
        working = {pool.submit(jobs[i]): i for i in islice(queue, processes)}
        try:
            while working:
                for future in wait(working, return_when=FIRST_COMPLETED).done:
                    try:
                        made: Made | Crash = future.result()
                    except BrokenProcessPool:
                        raise
                    except Exception as error:
                        made = Crash(f"{type(error).__name__}: {error}")
                    done[working.pop(future)] = made
                    if tell:
                        tell(len(done) / len(jobs))
                    for i in islice(queue, 1):
                        working[pool.submit(jobs[i])] = i
        except BrokenProcessPool:
            return [i for i in working.values() if i not in done]
    return []


def start_alone() -> None:
    """For a process that shares the machine with others like it: one thread, and no word when all are interrupted."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before any library is there to read it
    signal.signal(signal.SIGINT, signal.SIG_DFL)
