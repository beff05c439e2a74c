"""How related two issues are: cosine of their words, weighted by how rare a word is in the repository."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from data_prep.trajectories.run_summary import Light

Vector = tuple[np.ndarray, np.ndarray]


class IssueSimilarity:
    """Cosine of log(1 + count) * idf vectors, idf counted among the issues given (one per instance)."""

    def __init__(self, lights: Iterable[Light]) -> None:
        issues = {light.instance_id: light.words[0] for light in lights}
        ids = np.concatenate([*issues.values(), np.zeros(0, np.int64)])
        self._known, documents = np.unique(ids, return_counts=True)
        self._idf = np.log((1 + len(issues)) / (1 + documents)) + 1.0
        self._vectors: dict[str, Vector] = {}

    def vector(self, light: Light) -> Vector:
        """Ids and weights of unit length."""
        if light.instance_id not in self._vectors:
            ids, counts = light.words
            weights = np.log1p(counts) * self._idf[np.searchsorted(self._known, ids)]
            norm = float(np.linalg.norm(weights))
            self._vectors[light.instance_id] = (ids, weights / norm if norm else weights)
        return self._vectors[light.instance_id]

    def __call__(self, one: Light, other: Light) -> float:
        """0 (no word in common) to 1 (the same words equally often)."""
        (ids_a, a), (ids_b, b) = self.vector(one), self.vector(other)
        _, at_a, at_b = np.intersect1d(ids_a, ids_b, assume_unique=True, return_indices=True)
        return float(min(1.0, a[at_a] @ b[at_b]))
