"""GFN2-xTB's values for some molecules of a prepared data set, so that networks can learn to read them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from molflow.data.records import Record, pack
from molflow.data.shards import Made, Shards
from molflow.data.store import DataError, MoleculeStore
from molflow.molecules.convert import Molecule, unbatch
from molflow.molecules.druglike import scores_of
from molflow.molecules.labels import DRUGLIKE, XTB
from molflow.oracles import xtb

PART = 100
"""Molecules of one part, a quarter to a whole minute of one core."""

ALPHA = list(XTB).index("alpha")


class Job(NamedTuple):
    """A molecule to be labelled, its number in the source, and whether its polarisability is wanted."""

    number: int
    molecule: Molecule
    alpha: bool


def label(store: MoleculeStore, out: Path, n: int, *, polarisabilities: int = 0,
          workers: int = 2) -> tuple[dict[str, int], Counter[str]]:
    """Write ``store`` to ``out`` with a column for each of `labels.XTB` that has a value, NaN where there is none.

    Which molecules are labelled is decided by their numbers alone, as good as at random: every part of the data set has
    its share, and more labels, or more molecules in the data set, leave those that are there. They are kept in a folder
    beside ``out``, ``NAME.parts``, so that a run that was stopped goes on. Geometries are taken as they are.

    Args:
        store: one geometry a molecule; where nothing is known of them, as of those that `molflow.coupling` makes, the
            scores are added too.
        n: how many molecules.
        polarisabilities: of how many of them, the first; each takes longer than all else.
        workers: processes.

    Returns:
        How many molecules have each label, and how many GFN2-xTB has none for, by reason.

    Raises:
        DataError: more is wanted than there is, molecules cannot be told apart by their numbers, or have such columns
            already, or the folder holds labels of others.
        ExtraMissing: tblite is not installed.
    """
    if not 0 <= polarisabilities <= n <= len(store):
        raise DataError(f"cannot label {n} of {len(store)} molecules, with polarisability {polarisabilities} of them")
    if len(store.index.unique()) < len(store):
        raise DataError("several geometries have the same number: only data with one a molecule can be labelled")
    if there := [name for name in XTB if name in store.names]:
        raise DataError(f"the data have a column {there[0]} already")
    store = store if store.names else scored(store)
    shards = Shards(out.with_suffix(".parts"), {"labels": xtb.METHOD, "version": xtb.version()})
    seen, labels = collect(shards, store)
    failed = seen & ~labels.isfinite().any(1)
    lacking = [(row, place < polarisabilities) for place, row in enumerate(order(store.index)[:n])
               if not seen[row] or (place < polarisabilities and labels[row, ALPHA].isnan() and not failed[row])]
    shards.make(_jobs(store, lacking), work, workers=workers, total=len(lacking), what="GFN2-xTB",
                first=max(shards.numbers(), default=-1) + 1)
    _, labels = collect(shards, store)
    count = {name: times for name, times in zip(XTB, labels.isfinite().sum(0).tolist(), strict=True) if times}
    replace(store, properties=torch.cat([store.properties, labels[:, [name in count for name in XTB]]], 1),
            names=(*store.names, *count), units=(*store.units, *(XTB[name] for name in count)),
            source=f"{store.source}; labels by {xtb.METHOD} ({xtb.version()}): {count}").save(out)
    return count, shards.refused(shards.numbers())


def scored(store: MoleculeStore) -> MoleculeStore:
    """The molecules with the values of `labels.DRUGLIKE`, NaN where one is not valid; all are for training."""
    values = torch.full((len(store), len(DRUGLIKE)), torch.nan)
    for row in range(len(store)):
        (molecule,) = unbatch(store.batch(torch.tensor([row])))
        if molecule.smiles is not None:
            known = scores_of(molecule.smiles)
            values[row] = torch.tensor([known[name] for name in DRUGLIKE])
    return replace(store, properties=values, names=tuple(DRUGLIKE), units=tuple(DRUGLIKE.values()),
                   split=torch.zeros(len(store), dtype=torch.uint8))


def order(numbers: Tensor) -> list[int]:
    """Rows of molecules with these numbers (M,) in the order in which they are labelled: that of a hash of the number,
    another than decides about the halves of the training part."""
    places = [hashlib.blake2b(number.to_bytes(4, "little"), digest_size=8).digest() for number in numbers.tolist()]
    return sorted(range(len(places)), key=places.__getitem__)


def collect(shards: Shards, store: MoleculeStore) -> tuple[Tensor, Tensor]:
    """Which molecules of a store (M,) the parts know, and their labels (M, `labels.XTB`), NaN where there is none.

    Raises:
        DataError: the parts are about others.
    """
    row_of = {number: row for row, number in enumerate(store.index.tolist())}
    seen, labels = torch.zeros(len(store), dtype=torch.bool), torch.full((len(store), len(XTB)), torch.nan)
    for number in shards.numbers():
        part = MoleculeStore.load(shards.store_file(number))
        rows = torch.tensor([row_of.get(one, -1) for one in part.index.tolist()])
        given = part.batch(torch.arange(len(part))).positions
        if (rows < 0).any() or not torch.equal(store.batch(rows).positions, given):
            raise DataError(f"{shards.folder} holds labels of other molecules: choose another --out, or remove it")
        seen[rows] = True
        labels[rows] = torch.where(part.properties.isfinite(), part.properties, labels[rows])
    return seen, labels


def work(jobs: Sequence[Job]) -> Made:
    """One part of the labels."""
    refused: Counter[str] = Counter()
    values = []
    for job in jobs:
        found = xtb.properties(job.molecule, alpha=job.alpha, solvation=True)
        values.append([getattr(found, name) for name in XTB])
        if found.fault:
            refused[found.fault.partition(" (")[0]] += 1
    return pack([Record.of(job.molecule) for job in jobs], np.array(values), np.array([job.number for job in jobs]),
                names=tuple(XTB), units=tuple(XTB.values()), source=f"{xtb.METHOD} ({xtb.version()})"), refused


def _jobs(store: MoleculeStore, wanted: Sequence[tuple[int, bool]]) -> Iterator[list[Job]]:
    """A list for each part; ``wanted`` are rows and whether the polarisability is."""
    for start in range(0, len(wanted), PART):
        rows, alphas = zip(*wanted[start : start + PART], strict=True)
        members = torch.tensor(rows)
        yield [Job(*one) for one in zip(store.index[members].tolist(), unbatch(store.batch(members)), alphas,
                                        strict=True)]
