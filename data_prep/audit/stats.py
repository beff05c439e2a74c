"""Intervals of an accuracy: Wilson's, and a bootstrap over whatever hangs together; the widest counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.stats import norm

_DRAWS = 500


def z_of(tests: int, level: float = 0.95) -> float:
    """Quantile for two-sided intervals that hold for ``tests`` rows at once with probability ``level`` (Bonferroni)."""
    return float(norm.ppf(1 - (1 - level) / (2 * max(1, tests))))


def wilson(accuracy: float, n: int, z: float) -> tuple[float, float]:
    """Wilson's score interval for a share of ``n`` independent trials."""
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def cross_validation_factor(folds: int) -> float:
    """By how much the standard error grows because the folds' models share training pairs.

    Nadeau and Bengio (2003): the variance of a mean over J folds is taken as (1/J + test/training) instead of 1/J of a
    fold's, so sqrt(1 + J/(J-1)) times the plain error. Measured on pairs without a shortcut, the plain error is too
    small by a quarter on average, and every sixth such audit would raise an alarm.
    """
    return float(np.sqrt(1 + folds / (folds - 1)))


def cluster_error(credit: np.ndarray, clusters: np.ndarray, rng: np.random.Generator, draws: int = _DRAWS) -> float:
    """Standard error of the mean credit when whole clusters are drawn with replacement."""
    _, number = np.unique(clusters, return_inverse=True)
    sums = np.bincount(number, weights=credit)
    sizes = np.bincount(number).astype(float)
    count = len(sums)
    means = np.empty(draws)
    # A block at a time: draws x clusters would not fit for large files.
    block = max(1, 4_000_000 // count)
    for first in range(0, draws, block):
        rows = min(block, draws - first)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=rows)
        means[first : first + rows] = (weights @ sums) / (weights @ sizes)
    return float(means.std())


class Spread:
    """Standard error and size of one accuracy, from which intervals at any level follow.

    Args:
        credit: [pairs] 0..1.
        clusterings: number of the cluster of each pair, one array for each way pairs may depend on each other.
        factor: the bootstrap's error is multiplied by it; see :func:`cross_validation_factor`.
    """

    def __init__(
        self, credit: np.ndarray, clusterings: Iterable[np.ndarray], rng: np.random.Generator, factor: float = 1.0
    ) -> None:
        self.n = len(credit)
        self.accuracy = float(credit.mean())
        # A handful of clusters says nothing about the spread between them.
        self._error = factor * max(
            (cluster_error(credit, c, rng) for c in clusterings if len(np.unique(c)) >= 20 or self.n < 40), default=0.0
        )

    def interval(self, z: float) -> tuple[float, float]:
        """(low, high): the wider of Wilson's and the bootstrap's on each side."""
        low, high = wilson(self.accuracy, self.n, z)
        return max(0.0, min(low, self.accuracy - z * self._error)), min(1.0, max(high, self.accuracy + z * self._error))
