"""How related two issues are: cosine of their words, weighted by how rare a word is, or of an encoder's vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from contextrl_verl.pairs.whole_file import whole_file
from data_prep.models.sentence_encoder import load_sentence_encoder
from data_prep.trajectories.run import TrajectoryError
from data_prep.trajectories.scan import Light, stored_run

# An encoder reads a few hundred tokens; the rest of an issue is cut by it anyway.
_READ = 8_000


class IssueSimilarity:
    """Cosine of log(1 + count) * idf vectors, idf counted among the issues given (one per instance)."""

    def __init__(self, lights: Iterable[Light]) -> None:
        issues = {light.instance_id: light.words for light in lights}
        known, documents = np.unique(
            np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in issues.values())]), return_counts=True
        )
        idf = np.log((1 + len(issues)) / (1 + documents)) + 1.0
        self._vectors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for instance, (ids, counts) in issues.items():
            weights = np.log1p(counts) * idf[np.searchsorted(known, ids)]
            self._vectors[instance] = ids, weights / (float(np.linalg.norm(weights)) or 1.0)

    def __call__(self, one: Light, other: Light) -> float:
        """0 (no word in common) to 1 (the same words equally often), of two runs among those given."""
        (ids_a, a), (ids_b, b) = self._vectors[one.instance_id], self._vectors[other.instance_id]
        _, at_a, at_b = np.intersect1d(ids_a, ids_b, assume_unique=True, return_indices=True)
        return float(min(1.0, a[at_a] @ b[at_b]))


class EmbeddedSimilarity:
    """Cosine of an encoder's vectors; the issue of every instance is embedded once.

    Args:
        lights: runs with stored text.
        model: name or folder of a sentence-transformers model; code that comes with a model is not run.
        folder: vectors are kept here, so that a killed job does not compute them again.

    Raises:
        TrajectoryError: the library is not installed, or the model cannot be loaded.
    """

    def __init__(self, lights: Iterable[Light], model: str, folder: Path, *, progress: bool = True) -> None:
        first = {light.instance_id: light.stored for light in sorted(lights, key=lambda light: light.stored)[::-1]}
        wanted = sorted(first)
        name = hashlib.blake2b(json.dumps([model, wanted]).encode(), digest_size=8).hexdigest()
        file = folder / f"issues-{name}.npy"
        if not file.exists():
            encoder = load_sentence_encoder(model, "--related-model", TrajectoryError)
            issues = [stored_run(*first[instance]).issue[:_READ] for instance in wanted]
            found = encoder.encode(issues, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=progress)
            with whole_file(file) as path, path.open("wb") as stream:
                np.save(stream, found.astype(np.float32), allow_pickle=False)
        self._vectors = dict(zip(wanted, np.load(file, allow_pickle=False), strict=True))

    def __call__(self, one: Light, other: Light) -> float:
        """-1 to 1."""
        return float(self._vectors[one.instance_id] @ self._vectors[other.instance_id])
