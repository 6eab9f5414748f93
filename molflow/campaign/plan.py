"""What is left to do, from the specification and what is stored: pure functions, the same after every stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from molflow.campaign.spec import Spec
from molflow.campaign.work import miss
from molflow.verification import Method

Place = tuple[int, int]
"""Number of the target and of the molecule for it, both from 1."""

UNFIT = ("failed", "breaks", "strained")
"""Verdicts of xTB after which no DFT is spent on a molecule."""


@dataclass(frozen=True, eq=False)
class Record:
    """A row of the database: its id, when it was made, and its key-value pairs."""

    id: int
    made: float
    values: dict[str, Any]

    @property
    def place(self) -> Place:
        return self.values["target"], self.values["number"]

    @property
    def sound(self) -> bool:
        """Whether the molecule was designed, and valid."""
        return "smiles" in self.values and self.values["status"] != "invalid"


@dataclass(frozen=True)
class Batch:
    """Molecules ``first`` to ``last`` for a target, all numbers from 1, and the seed and the share that make them.

    Each batch of a target has a share of its own of where `molflow.design` begins: else they would find the same
    molecules, only the nearest.
    """

    target: int
    first: int
    last: int
    seed: int
    share: tuple[int, int]

    @property
    def places(self) -> list[Place]:
        return [(self.target, number) for number in range(self.first, self.last + 1)]


def undesigned(spec: Spec, records: Iterable[Record]) -> list[Batch]:
    """The batches that are not stored; a batch is stored whole or not at all."""
    stored = {record.place for record in records}
    found = []
    firsts = range(1, spec.molecules + 1, spec.batch)
    for target in range(1, len(spec.targets) + 1):
        for number, first in enumerate(firsts):
            if (target, first) not in stored:
                seed = int(np.random.SeedSequence((spec.seed, target, first)).generate_state(1)[0])
                last = min(first + spec.batch - 1, spec.molecules)
                found.append(Batch(target, first, last, seed, (number, len(firsts))))
    return found


def split(records: Iterable[Record]) -> tuple[list[Record], list[tuple[Record, Record]]]:
    """The valid molecules that are the first of their SMILES, by place and whatever was ready first, and each other
    one with that first one."""
    first: dict[str, Record] = {}
    again = []
    for record in sorted(records, key=lambda record: record.place):
        if record.sound and first.setdefault(record.values["smiles"], record) is not record:
            again.append((record, first[record.values["smiles"]]))
    return list(first.values()), again


def wanted(spec: Spec, records: Sequence[Record], method: Method) -> list[Record]:
    """The molecules that this method is to verify, in order, those that it has verified among them.

    By DFT the ``best`` of each target: those that xTB has left whole, that do not contradict xTB before those that
    do, then by the evaluator's miss.
    """
    unique, _ = split(records)
    if method == "xtb":
        return unique if spec.xtb else []
    if spec.dft is None:
        return []

    def order(record: Record) -> tuple[bool, float, Place]:
        return record.values.get("xtb_verdict") == "off target", miss(record.values), record.place

    fit = sorted((r for r in unique if r.values.get("xtb_verdict") not in UNFIT), key=order)
    ranks: Counter[int] = Counter()
    chosen = []
    for record in fit:
        ranks[record.place[0]] += 1
        if ranks[record.place[0]] <= spec.dft.best:
            chosen.append(record)
    return sorted(chosen, key=lambda record: record.place)


def is_verified(record: Record, method: Method) -> bool:
    """Whether this method's verdict is stored."""
    return f"{method}_verdict" in record.values


@dataclass(frozen=True)
class Status:
    """How far a campaign is: of each stage how many molecules are done, and of how many.

    What there is for the later stages is known for certain when the earlier ones are done.

    Attributes:
        name: of the campaign.
        design, xtb, dft: done, and to be done in all; (0, 0) for a stage that is not wanted.
        distinct: how many of the designed are valid, and the first of their kind.
        words: how many molecules there are of each status.
    """

    name: str
    design: tuple[int, int]
    distinct: int
    xtb: tuple[int, int]
    dft: tuple[int, int]
    words: dict[str, int]

    @property
    def done(self) -> bool:
        return all(done == total for done, total in (self.design, self.xtb, self.dft))

    def __str__(self) -> str:
        words = dict(self.words)
        again = words.pop("duplicate", 0)
        parts = [f"{self.design[1]} wanted, {self.design[0]} designed, {self.distinct} distinct, {again} duplicate"
                 + "s" * (again != 1)]
        parts += [f"{stage} {done} of {total}" for stage, (done, total) in (("xTB", self.xtb), ("DFT", self.dft))
                  if total]
        parts += [", ".join(f"{count} {word}" for word, count in words.items())] * bool(words)
        return f"{self.name}: {'; '.join(parts)}"


def survey(spec: Spec, records: Sequence[Record]) -> Status:
    """How far it is."""
    stages = {}
    for method in ("xtb", "dft"):
        jobs = wanted(spec, records, method)
        stages[method] = sum(is_verified(record, method) for record in jobs), len(jobs)
    unique, again = split(records)
    repeated = {record.id for record, _ in again}
    words = Counter("duplicate" if record.id in repeated else record.values["status"] for record in records)
    return Status(spec.name, (len(records), len(spec.targets) * spec.molecules), len(unique), **stages,
                  words=dict(words.most_common()))
