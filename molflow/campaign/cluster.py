"""Work spread by Dask: on this machine, by a scheduler that is there already, or on what Slurm gives."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from molflow.campaign.extra import needed
from molflow.campaign.spec import Spec, SpecError
from molflow.campaign.work import FATAL
from molflow.parallel import Crash

if TYPE_CHECKING:
    from dask.distributed import Client, Future, SpecCluster

Job = TypeVar("Job")
Made = TypeVar("Made")

LOOK = 5.0
"""Seconds between looks for workers that have come."""

CONNECT = 20.0
"""Seconds to wait for a scheduler."""


class SchedulerError(OSError):
    """The scheduler cannot be reached, or is gone."""


@contextmanager
def workers(spec: Spec) -> Iterator[Client]:
    """A client of the workers that the specification names. Local ones, and Slurm's jobs, end with it.

    Local ones are spawned: a script that calls this must be one that can be imported.

    Raises:
        SchedulerError: the scheduler does not answer.
        SpecError: dask-jobqueue does not take the settings of Slurm.
        ExtraMissing: Dask, or for Slurm dask-jobqueue, is not installed.
    """
    with needed():
        from dask.distributed import Client, LocalCluster
    # a worker that dies is replaced and its job done again: nothing to report before it is given up
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        if spec.scheduler:
            try:
                client = stack.enter_context(Client(spec.scheduler, timeout=CONNECT))
            except (OSError, ValueError) as error:
                raise SchedulerError(f"no scheduler answers at {spec.scheduler} ({_line(error)})") from None
        elif spec.slurm is not None:
            client = stack.enter_context(Client(stack.enter_context(slurm(spec))))
        else:
            client = stack.enter_context(Client(stack.enter_context(LocalCluster(
                n_workers=spec.workers or len(os.sched_getaffinity(0)), threads_per_worker=1, processes=True,
                dashboard_address=None, silence_logs=logging.CRITICAL))))
        yield client


def slurm(spec: Spec) -> SpecCluster:
    """A cluster of as many of Slurm's jobs as hold the wanted workers. Raises SpecError."""
    with needed():
        from dask_jobqueue import SLURMCluster
    try:
        cluster = SLURMCluster(**(spec.slurm or {}))
    except (TypeError, ValueError) as error:
        raise SpecError(f"slurm: {_line(error)}") from None
    cluster.scale(spec.workers)
    return cluster


def each(client: Client, jobs: Iterable[tuple[Job, Callable[[], Made]]]) -> Iterator[tuple[Job, Made | Crash]]:
    """``(job, call())`` for each ``(job, call)``, as they are done; a `Crash` in place of what raised, or what had
    four workers die.

    No more are under way than there are threads. One that kills its worker kills none that waited there, and a client
    that dies leaves no queue behind.

    Raises:
        work.FATAL: as a job raised it.
        SchedulerError: the scheduler is gone.
    """
    from dask.distributed import CancelledError, wait

    queue = iter(jobs)
    under_way: dict[Future, Job] = {}
    while True:
        try:
            free = max(1, sum(client.nthreads().values())) - len(under_way)
            for job, call in islice(queue, max(0, free)):
                under_way[client.submit(call, pure=False)] = job
            if not under_way:
                return
            done = wait(list(under_way), timeout=LOOK, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            continue  # perhaps workers have come meanwhile
        except (OSError, CancelledError):
            raise SchedulerError("the scheduler is gone") from None
        for future in done:
            yield under_way.pop(future), _made(future)


def _made(future: Future) -> Any:
    from dask.distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except CancelledError:
        raise SchedulerError("the scheduler is gone") from None
    except KilledWorker as error:
        return Crash(f"{error.allowed_failures + 1} workers died of it")
    except FATAL:
        raise
    except Exception as error:
        return Crash(f"{type(error).__name__}: {_line(error)}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).replace("\0", "").split())[:200]
