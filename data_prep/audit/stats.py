"""Intervals of an accuracy: Wilson's, and one from the spread between whatever hangs together; the wider counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.stats import norm


def wilson(accuracy: float, n: int, z: float) -> tuple[float, float]:
    """Wilson's score interval for a share of ``n`` independent trials."""
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def cluster_error(credit: np.ndarray, clusterings: Iterable[np.ndarray]) -> float:
    """Standard error of the mean credit when whole clusters are drawn; the largest of several ways to cluster.

    Args:
        credit: [pairs] 0..1.
        clusterings: number of the cluster of each pair, one array for each way pairs may depend on each other.
    """
    errors = [0.0]
    for clusters in clusterings:
        sums = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=credit - credit.mean())
        # A handful of clusters says nothing about the spread between them.
        if len(sums) >= 20 or (1 < len(sums) and len(credit) < 40):
            errors.append(float(np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum())) / len(credit))
    return max(errors)


def interval(accuracy: float, n: int, error: float, tests: int) -> tuple[float, float]:
    """(low, high) of ``n`` trials: Wilson's or from the standard error, whichever is wider on each side.

    All ``tests`` intervals hold at once with probability 0.95 (Bonferroni).
    """
    z = float(norm.ppf(1 - 0.05 / (2 * max(1, tests))))
    low, high = wilson(accuracy, n, z)
    return max(0.0, min(low, accuracy - z * error)), min(1.0, max(high, accuracy + z * error))
