"""How often each size occurs, and each property at that size: what a target is drawn from and judged against."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from molflow.data.store import MoleculeStore
from molflow.molecules.elements import MOST_ATOMS

BINS = 100


@dataclass(frozen=True)
class Prior:
    """Histograms of a training set.

    Attributes:
        sizes: atom counts that occur, ascending.
        counts: molecules of each size.
        ranges: smallest and largest value of each property.
        joint: for each property, (sizes, BINS) molecules of each size in each of BINS equal bins of the range.

    Raises:
        ValueError, TypeError: what is given is no such thing.
    """

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    ranges: dict[str, tuple[float, float]]
    joint: dict[str, list[list[int]]]

    def __post_init__(self) -> None:
        sizes, counts = np.array(self.sizes, int), np.array(self.counts, float)
        tables = [np.array(table, float) for table in self.joint.values()]
        bounds = np.array(list(self.ranges.values()), float).reshape(-1, 2)
        if not len(sizes) or sizes[0] < 1 or sizes[-1] > MOST_ATOMS or (np.diff(sizes) < 1).any():
            raise ValueError(f"sizes must be whole numbers from 1 to {MOST_ATOMS}, ascending")
        if any(table.shape != (len(sizes), BINS) for table in tables) or counts.shape != sizes.shape:
            raise ValueError("counts and joint must have an entry for each of the sizes")
        if not all((table >= 0).all() and 0 < table.sum() < np.inf for table in (counts, *tables)):
            raise ValueError("counts and joint must be numbers of molecules")
        if self.ranges.keys() != self.joint.keys() or not (np.isfinite(bounds).all() and (np.diff(bounds) >= 0).all()):
            raise ValueError("ranges must be the smallest and the largest value of each property in joint")

    @classmethod
    def of(cls, store: MoleculeStore, members: np.ndarray, names: tuple[str, ...]) -> Prior:
        """Histograms over the given rows of a data set, of each property over those that have it (not NaN)."""
        size = store.sizes.numpy()[members]
        sizes, counts = np.unique(size, return_counts=True)
        ranges, joint = {}, {}
        for name, column in zip(names, store.columns(names).numpy()[members].T, strict=True):
            known = np.isfinite(column)
            if not known.any():
                continue
            low, high = float(column[known].min()), float(column[known].max())
            edges = [np.append(sizes, sizes[-1] + 1), np.linspace(low, high, BINS + 1)]
            ranges[name] = (low, high)
            joint[name] = np.histogram2d(size[known], column[known].clip(low, high), bins=edges)[0].astype(int).tolist()
        return cls(tuple(sizes.tolist()), tuple(counts.tolist()), ranges, joint)

    def draw_sizes(self, n: int, rng: np.random.Generator,
                   ranges: dict[str, tuple[float, float]] | None = None) -> np.ndarray:
        """(n,) atom counts from p(N), or from p(N | properties in the ranges), taken as independent given N; of a
        property that the data did not have, nothing follows.

        Bins are smoothed over their neighbours and by one molecule in a thousand of p(N), so that a target
        never seen draws sizes from its surroundings rather than none.
        """
        weight = np.array(self.counts, float)
        weight /= weight.sum()
        for name, wanted in (ranges or {}).items():
            if name not in self.ranges:
                continue
            low, high = self.ranges[name]
            table = np.array(self.joint[name], float)
            middle = low + (np.arange(BINS) + 0.5) / BINS * (high - low)
            outside = (middle - middle.clip(*wanted)) / ((high - low) or 1.0) * BINS  # all may have the same value
            near = np.exp(-0.5 * (outside / 2.0) ** 2)
            likelihood = (table @ near) / table.sum(1).clip(min=1)  # of some sizes no value may be known
            weight = weight * (likelihood + 1e-3 * max(likelihood.max(), 1e-12))
            weight /= weight.sum()
        return rng.choice(np.array(self.sizes), size=n, p=weight)

    def draw_targets(self, name: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(n,) values and (n,) atom counts from p(property, N), as EDM's conditional benchmark draws them
        (Hoogeboom et al. 2022, arXiv 2203.17003, sec. 5.2): a bin of the histogram, then uniform in the bin.
        """
        table = np.array(self.joint[name], float)
        cell = rng.choice(table.size, size=n, p=table.ravel() / table.sum())
        row, column = np.unravel_index(cell, table.shape)
        low, high = self.ranges[name]
        return low + (column + rng.random(n)) * (high - low) / BINS, np.array(self.sizes)[row]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Prior:
        return cls(tuple(values["sizes"]), tuple(values["counts"]),
                   {key: (low, high) for key, (low, high) in values["ranges"].items()}, values["joint"])
