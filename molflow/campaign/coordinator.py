"""The one process that writes: it hands out what is not stored, and stores what comes back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from molflow.campaign import cluster, plan, work
from molflow.campaign.cluster import Workers
from molflow.campaign.database import Database
from molflow.campaign.plan import Record, Status
from molflow.campaign.spec import Spec
from molflow.campaign.work import Result
from molflow.molecules.convert import Molecule
from molflow.parallel import Crash
from molflow.verification import Method

Source = Spec | Mapping[str, Any] | str | os.PathLike[str]
Progress = Callable[[str, float], None]


def run(spec: Source, progress: Progress | None = None) -> Status:
    """Begin a campaign, or go on with it, to its end.

    Design, validation, xTB and DFT, each of which ends before the next begins: which molecules are duplicates, and
    which go to DFT, must not depend on what was ready first. A script that calls this must be one that can be imported
    (``if __name__ == "__main__":``).

    Args:
        spec: a YAML file, or a mapping of the same; see `Spec`.
        progress: called with what is being done and the share of it that is done.

    Raises:
        FileNotFoundError, SpecError: there is no specification, or it cannot be understood.
        OtherCampaign, lock.Busy, NotOpened: the database is another campaign's, worked on by another process, or cannot
            be reached or made.
        DatabaseError: it cannot be read or written any longer. What is stored already stays.
        SchedulerError: the scheduler is gone.
        ExtraMissing: something that has to do the work is not installed.
        TargetError, WeightsError: as `molflow.design`.
    """
    chosen = Spec.read(spec)
    tell = progress or (lambda what, share: None)
    work.programs(chosen.methods)
    with Database.claimed(chosen) as database:
        found = plan.survey(chosen, database.records())
        if found.done and not _unmarked(database):
            return found
        with cluster.workers(chosen) as workers:
            _design(database, workers, tell)
            database.mark({record: {"status": "duplicate", "duplicate_of": first.values["key"]}
                           for record, first in _unmarked(database)})
            for method, relax in chosen.methods.items():
                _verify(database, workers, method, relax, tell)
        return plan.survey(chosen, database.records())


def status(spec: Source) -> Status:
    """How far a campaign is, from its database alone: at any time and from any machine that can read it.

    Raises as `run`, but for what is about the work.
    """
    chosen = Spec.read(spec)
    database = Database.there(chosen)
    return plan.survey(chosen, database.records() if database else [])


def _design(database: Database, workers: Workers, tell: Progress) -> None:
    spec = database.spec
    batches = plan.undesigned(spec, database.records())
    total = len(spec.targets) * spec.molecules
    done = total - sum(len(batch.places) for batch in batches)
    tell("design", done / total)
    jobs = ((batch, partial(work.design, spec.targets[batch.target - 1], len(batch.places), batch.seed, batch.share,
                            spec.atoms, spec.budget)) for batch in batches)
    for batch, made in workers.each(jobs):
        database.add(batch, [_nothing(made)] * len(batch.places) if isinstance(made, Crash) else made)
        done += len(batch.places)
        tell("design", done / total)


def _verify(database: Database, workers: Workers, method: Method, relax: bool, tell: Progress) -> None:
    wanted = plan.wanted(database.spec, database.records(), method)
    waiting = [record for record in wanted if not plan.is_verified(record, method)]
    done = len(wanted) - len(waiting)
    tell(method, done / len(wanted) if wanted else 1.0)
    jobs = ((record, partial(work.verify, database.molecule(record), method, relax)) for record in waiting)
    for record, made in workers.each(jobs):
        if isinstance(made, Crash):
            made = Result(database.molecule(record), {f"{method}_verdict": "failed", "status": "failed",
                                                      "reason": made.why})
        database.change(record, method, made)
        done += 1
        tell(method, done / len(wanted))


def _unmarked(database: Database) -> list[tuple[Record, Record]]:
    """Duplicates that do not say so yet, each with the first of its kind; none before all is designed."""
    records = database.records()
    if plan.undesigned(database.spec, records):
        return []
    return [(again, first) for again, first in plan.split(records)[1] if again.values["status"] != "duplicate"]


def _nothing(crash: Crash) -> Result:
    """In the place of a molecule whose job has failed."""
    nothing = Molecule(np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 0), np.int64))
    return Result(nothing, {"status": "failed", "reason": crash.why})
