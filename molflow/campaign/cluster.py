"""Work spread by Dask: on this machine, by a scheduler that is there already, or on what Slurm gives."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from molflow.campaign.spec import Spec, SpecError
from molflow.campaign.work import FATAL
from molflow.extras import needed
from molflow.parallel import Crash
from molflow.wording import in_a_line

if TYPE_CHECKING:
    from dask.distributed import Client, Future, SpecCluster

Job = TypeVar("Job")
Made = TypeVar("Made")

LOOK = 5.0
"""Seconds between looks for workers that have come or are missing, while nothing else happens."""

CONNECT = 20.0
"""Seconds to wait for a scheduler."""

RESTART = "2 minutes"
"""How long a local worker that died may take to be back. Dask's 15 seconds are too few for a busy machine."""


class SchedulerError(OSError):
    """The scheduler is gone."""


@dataclass(frozen=True)
class Workers:
    """Who does the work: a Dask client, and the cluster of ``count`` workers behind it if it is ours to look after."""

    client: Client
    cluster: SpecCluster | None = None
    count: int = 0

    def each(self, jobs: Iterable[tuple[Job, Callable[[], Made]]]) -> Iterator[tuple[Job, Made | Crash]]:
        """``(job, call())`` for each ``(job, call)``, as they are done; a `Crash` in place of what raised, or what had
        four workers die.

        No more are under way than there are threads, so a job that kills its worker kills none that waited there.

        Raises:
            work.FATAL: as a job raised it.
            SchedulerError: the scheduler is gone.
        """
        queue = iter(jobs)
        under_way: dict[Future, Job] = {}
        while True:
            for job, call in islice(queue, max(0, self._threads() - len(under_way))):
                with _answered():
                    under_way[self.client.submit(call, pure=False)] = job
            if not under_way:
                return
            for future in _done(list(under_way)):
                yield under_way.pop(future), _made(future)

    def _threads(self) -> int:
        """Threads of the workers that are there, at least one; those that are gone for good are asked for again."""
        if self.cluster is not None:
            self.cluster.scale(self.count)
        with _answered():
            if self.client.status == "closed":
                raise ConnectionError
            return max(1, sum(self.client.nthreads().values()))


@contextmanager
def workers(spec: Spec) -> Iterator[Workers]:
    """The workers that the specification names. Local ones, and Slurm's jobs, end with it.

    Local ones are spawned: a script that calls this must be one that can be imported.

    Raises:
        SpecError: the scheduler does not answer, or dask-jobqueue does not take the settings of Slurm.
        ExtraMissing: Dask, or for Slurm dask-jobqueue, is not installed.
    """
    with needed():
        import dask
        from dask.distributed import Client, LocalCluster
    # a worker that dies is replaced and its job done again: nothing to report before it is given up
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if spec.scheduler:
        try:
            client = Client(spec.scheduler, timeout=CONNECT)
        except (OSError, ValueError) as error:
            raise SpecError(f"no scheduler answers at {spec.scheduler} ({in_a_line(error)})") from None
        with client:
            yield Workers(client)
    elif spec.slurm is not None:
        with slurm(spec) as cluster, Client(cluster) as client:
            yield Workers(client, cluster, spec.workers or 1)
    else:
        count = spec.workers or len(os.sched_getaffinity(0))
        with (
            dask.config.set({"distributed.deploy.lost-worker-timeout": RESTART}),
            LocalCluster(n_workers=count, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
                         silence_logs=logging.CRITICAL) as cluster,
            Client(cluster) as client,
        ):
            yield Workers(client, cluster, count)


def slurm(spec: Spec) -> SpecCluster:
    """What will ask Slurm for jobs. Raises SpecError."""
    with needed():
        from dask_jobqueue import SLURMCluster
    try:
        return SLURMCluster(**(spec.slurm or {}))
    except (TypeError, ValueError) as error:
        raise SpecError(f"slurm: {in_a_line(error)}") from None


def _done(futures: list[Future]) -> Iterable[Future]:
    """Those that are done, at least one of them, or none after `LOOK`."""
    from dask.distributed import wait

    with _answered():
        try:
            return wait(futures, timeout=LOOK, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return ()


@contextmanager
def _answered() -> Iterator[None]:
    """Around what asks the scheduler something."""
    from dask.distributed import CancelledError

    try:
        yield
    except (OSError, CancelledError):
        raise SchedulerError("the scheduler is gone") from None


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
        return Crash(f"{type(error).__name__}: {in_a_line(error)}")
