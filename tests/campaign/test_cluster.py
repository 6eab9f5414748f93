"""Jobs on real workers: what they return, what they raise, and what kills them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest

from molflow.campaign import cluster
from molflow.campaign.cluster import SchedulerError
from molflow.campaign.spec import Spec, SpecError
from molflow.oracles.record import OracleMissing
from molflow.parallel import Crash

SPEC = Spec.read({"name": "a", "targets": [{"gap": 5.0}], "molecules": 1, "workers": 2})


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    with cluster.workers(SPEC) as client:
        yield client


def raises(error: Exception) -> None:
    raise error


def test_one_that_kills_its_workers_costs_no_other(client) -> None:
    jobs = [*((n, partial(divmod, n, 7)) for n in range(40)), ("text", partial(int, "x")),
            ("dies", partial(os._exit, 1)), *((n, partial(divmod, n, 7)) for n in range(40, 80))]
    found = dict(cluster.each(client, jobs))
    assert found.pop("text") == Crash("ValueError: invalid literal for int() with base 10: 'x'")
    assert found.pop("dies") == Crash("4 workers died of it")
    assert found == {n: divmod(n, 7) for n in range(80)}


@pytest.mark.parametrize("error", [OracleMissing("no such program"), OSError(28, "No space left on device")])
def test_what_no_molecule_is_to_blame_for_ends_it(client, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error).split("]")[-1].strip()):
        list(cluster.each(client, [(n, partial(raises, error)) for n in range(3)]))


def test_jobs_are_taken_when_there_is_somebody_to_do_them(client) -> None:
    taken: list[int] = []

    def jobs() -> Iterator[tuple[int, partial]]:
        for n in range(20):
            taken.append(n)
            yield n, partial(divmod, n, 7)

    for done, _ in enumerate(cluster.each(client, jobs())):
        assert len(taken) <= done + 1 + 2  # at most one waits for each of the two workers
    assert len(taken) == 20


def test_a_scheduler_that_is_there_already(client) -> None:
    from dataclasses import replace

    with cluster.workers(replace(SPEC, workers=None, scheduler=client.scheduler.address)) as other:
        assert dict(cluster.each(other, [(1, partial(divmod, 9, 7))])) == {1: (1, 2)}
    assert len(client.nthreads()) == 2, "they are not ours to stop"


def test_a_scheduler_that_goes_away() -> None:
    with cluster.workers(SPEC) as client, pytest.raises(SchedulerError, match="gone"):
        jobs = cluster.each(client, [(n, partial(divmod, n, 7)) for n in range(9)])
        next(jobs)
        client.cluster.close()
        list(jobs)


def test_what_is_asked_of_slurm() -> None:
    pytest.importorskip("dask_jobqueue")
    from dataclasses import replace

    settings = {"queue": "normal", "cores": 4, "processes": 4, "memory": "16GB", "walltime": "01:00:00"}
    with cluster.slurm(replace(SPEC, workers=None, slurm=settings)) as jobs:
        script = jobs.job_script()
    assert "#SBATCH -p normal" in script and "--nthreads 1 --nworkers 4" in script
    with pytest.raises(SpecError, match=r"slurm: .*colour"):
        cluster.slurm(replace(SPEC, slurm={**settings, "colour": 1}))
