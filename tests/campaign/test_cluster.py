"""Jobs on real workers: what they return, what they raise, and what kills them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module

import pytest

from molflow.campaign import cluster
from molflow.campaign.cluster import SchedulerError, Workers
from molflow.campaign.spec import Spec, SpecError
from molflow.parallel import Crash

SPEC = Spec.read({"name": "a", "targets": [{"gap": 5.0}], "molecules": 1, "workers": 2})


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with cluster.workers(SPEC) as workers:
        yield workers


def test_one_that_kills_its_workers_costs_no_other(workers: Workers) -> None:
    jobs = [*((n, partial(divmod, n, 7)) for n in range(40)), ("text", partial(int, "x")),
            ("dies", partial(os._exit, 1)), *((n, partial(divmod, n, 7)) for n in range(40, 80))]
    found = dict(workers.each(jobs))
    assert found.pop("text") == Crash("ValueError: invalid literal for int() with base 10: 'x'")
    assert found.pop("dies") == Crash("4 workers died of it")
    assert found == {n: divmod(n, 7) for n in range(80)}


@pytest.mark.parametrize(("job", "error"), [
    (partial(import_module, "no_such_module"), ModuleNotFoundError), (partial(os.listdir, "/no/folder"), OSError),
])
def test_what_no_molecule_is_to_blame_for_ends_it(workers: Workers, job: partial, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"No such file|no_such_module"):
        list(workers.each([(n, job) for n in range(3)]))


def test_jobs_are_taken_when_there_is_somebody_to_do_them(workers: Workers) -> None:
    taken: list[int] = []

    def jobs() -> Iterator[tuple[int, partial]]:
        for n in range(20):
            taken.append(n)
            yield n, partial(divmod, n, 7)

    for done, _ in enumerate(workers.each(jobs())):
        assert len(taken) <= done + 1 + 2  # at most one waits for each of the two workers
    assert len(taken) == 20


def test_a_scheduler_that_is_there_already(workers: Workers) -> None:
    with cluster.workers(replace(SPEC, workers=None, scheduler=workers.client.scheduler.address)) as other:
        assert dict(other.each([(1, partial(divmod, 9, 7))])) == {1: (1, 2)}
    assert len(workers.client.nthreads()) == 2, "they are not ours to stop"


def test_a_scheduler_that_goes_away() -> None:
    with cluster.workers(SPEC) as workers, pytest.raises(SchedulerError, match="gone"):
        jobs = workers.each([(n, partial(divmod, n, 7)) for n in range(9)])
        next(jobs)
        workers.client.cluster.close()
        list(jobs)


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT", 1.0)
    for address in ("tcp://127.0.0.1:9", "colour://127.0.0.1:9", "tcp://127.0.0.1:99999"):
        wanted = replace(SPEC, workers=None, scheduler=address)
        with pytest.raises(SpecError, match=f"no scheduler answers at {address}"), cluster.workers(wanted):
            pass


def test_what_is_asked_of_slurm() -> None:
    pytest.importorskip("dask_jobqueue")
    settings = {"queue": "normal", "cores": 4, "processes": 4, "memory": "16GB", "walltime": "01:00:00"}
    with cluster.slurm(replace(SPEC, workers=None, slurm=settings)) as jobs:
        script = jobs.job_script()
    assert "#SBATCH -p normal" in script and "--nthreads 1 " in script and "--nworkers 4 " in script
    with pytest.raises(SpecError, match=r"slurm: .*colour"):
        cluster.slurm(replace(SPEC, slurm={**settings, "colour": 1}))
