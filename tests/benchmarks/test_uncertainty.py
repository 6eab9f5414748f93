"""Standard errors against textbook values and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, sem

from benchmarks import uncertainty


def test_binomial() -> None:
    assert uncertainty.binomial(0.5, 100) == pytest.approx(0.05)
    assert uncertainty.binomial(1.0, 100) == uncertainty.binomial(0.0, 0) == 0


def test_a_ratio_of_single_trials_is_binomial() -> None:
    assert uncertainty.ratio([1] * 30 + [0] * 70, [1] * 100) == pytest.approx(uncertainty.binomial(0.3, 100))


def test_a_ratio_counts_molecules_not_atoms() -> None:
    """Molecules of 10 atoms, whole or not at all: as uncertain as the molecules are, however many atoms they have."""
    assert uncertainty.ratio([10] * 30 + [0] * 70, [10] * 100) == pytest.approx(uncertainty.binomial(0.3, 100))
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 30, (2000, 200))
    hits = rng.binomial(sizes, rng.beta(9, 1, sizes.shape))
    spread = (hits.sum(1) / sizes.sum(1)).std()
    said = [uncertainty.ratio(*sample) for sample in zip(hits, sizes, strict=True)]
    assert np.mean(said) == pytest.approx(spread, rel=0.05)


def test_mean_and_median_are_scipys() -> None:
    values = np.random.default_rng(0).lognormal(size=101).tolist()
    assert uncertainty.mean(values) == pytest.approx(sem(values))
    theirs = bootstrap((values,), np.median, n_resamples=5000, method="percentile", vectorized=True).standard_error
    assert uncertainty.median(values) == pytest.approx(theirs, rel=0.1)
    assert uncertainty.mean([1.0]) is uncertainty.median([1.0]) is uncertainty.median([]) is None
    assert uncertainty.median([2.0, 2.0]) == 0
