"""Standard errors of what is measured on a sample of molecules."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def binomial(fraction: float, trials: int) -> float:
    """Of a fraction of independent trials; 0 of none."""
    return math.sqrt(fraction * (1 - fraction) / max(trials, 1))


def ratio(hits: Sequence[float], totals: Sequence[float]) -> float:
    """Of sum(hits) / sum(totals), where molecules are independent and what is in one of them, its atoms, is not.

    The ratio estimator's (Cochran, Sampling Techniques, 3rd ed. 1977, ch. 6).
    """
    good, all_ = np.asarray(hits, float), np.asarray(totals, float)
    return float(np.sqrt(((good - good.sum() / all_.sum() * all_) ** 2).sum()) / all_.sum())


def mean(values: Sequence[float]) -> float | None:
    """Of the mean; None of fewer than two."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def median(values: Sequence[float]) -> float | None:
    """Of the median, by a bootstrap of 1,000 draws (Efron 1979); None of fewer than two."""
    if len(values) < 2:
        return None
    draws = np.random.default_rng(0).choice(np.asarray(values, float), (1000, len(values)))
    return float(np.median(draws, axis=1).std())
