"""Many calculations: a process a core, a thread a process, and none that costs the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, resource_tracker
from typing import Any, NamedTuple, TypeVar

Made = TypeVar("Made")


class Processes(ProcessPoolExecutor):
    """A pool of ``count`` processes that share the machine: of one thread each, and silent when all are interrupted.

    They are spawned, not forked: a fork of a process whose libraries have threads may hang. A script that makes such a
    pool must therefore be one that can be imported (``if __name__ == "__main__":``).
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, get_context("spawn"), _start_alone)

    def submit(self, *call: Any, **named: Any) -> Future[Any]:
        """As of `ProcessPoolExecutor`; where it starts a process, that one hears of no interrupt before `_start_alone`,
        since it inherits what is blocked here: Python would tell of it from the middle of an import."""
        resource_tracker.ensure_running()  # which unblocks, once started
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*call, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_alone() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # before any library is there to read it
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # now an interrupt that came meanwhile ends it


class Crash(NamedTuple):
    """In place of a result: the process ended without one, or the job raised; ``why`` in one line."""

    why: str


def spread(jobs: Sequence[Callable[[], Made]], workers: int | None = None,
           tell: Callable[[float], None] | None = None) -> list[Made | Crash]:
    """``[job() for job in jobs]``, a `Crash` where a job raised or took its process with it.

    They are spread over `Processes`, with what that asks of the calling script.

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
    with Processes(processes) as pool:
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
