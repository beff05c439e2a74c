"""Intervals of an accuracy: Wilson's, and one from the spread between whatever hangs together; the wider counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.stats import norm

# With fewer clusters, their spread says nothing.
LEAST_CLUSTERS = 20


def wilson(accuracy: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval for a share of ``n`` independent trials."""
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def variance_of_mean(values: np.ndarray, clusters: np.ndarray) -> tuple[float, int]:
    """(variance of the mean when whole clusters are drawn, number of clusters); 0 for a single cluster."""
    sums = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=values - values.mean())
    count = len(sums)
    return (count / (count - 1) * float(np.square(sums).sum()) / len(values) ** 2 if count > 1 else 0.0), count


def cluster_error(credit: np.ndarray, clusterings: Iterable[np.ndarray]) -> float:
    """Standard error of the mean of [pairs] credits; the largest of several ways in which pairs depend on each other.

    Args:
        clusterings: [pairs] number of the cluster of each pair, one array for each way.
    """
    found = [variance_of_mean(credit, clusters) for clusters in clusterings]
    return max((variance**0.5 for variance, n in found if n >= LEAST_CLUSTERS or len(credit) < 40), default=0.0)


def interval(accuracy: float, n: int, error: float, tests: int) -> tuple[float, float]:
    """(low, high) of ``n`` trials: Wilson's or from the standard error, whichever is wider on each side.

    All ``tests`` intervals hold at once with probability 0.95 (Bonferroni).
    """
    z = float(norm.ppf(1 - 0.05 / (2 * max(1, tests))))
    low, high = wilson(accuracy, n, z)
    return max(0.0, min(low, accuracy - z * error)), min(1.0, max(high, accuracy + z * error))
