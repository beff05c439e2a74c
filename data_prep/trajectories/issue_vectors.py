"""How related two issues are by a sentence encoder: cosine of their embeddings (the option beside shared words)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from contextrl_verl.pairs.whole_file import write_whole
from data_prep.models.sentence_encoder import load_sentence_encoder
from data_prep.trajectories.run import TrajectoryError
from data_prep.trajectories.run_summary import Light

# An encoder reads a few hundred tokens; the rest of an issue is cut by it anyway.
_READ = 8_000


class EmbeddedSimilarity:
    """Cosine of unit vectors, one per instance.

    Args:
        vectors: (N, D) float32 by instance id.
    """

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self._vectors = vectors

    def __call__(self, one: Light, other: Light) -> float:
        """-1 to 1."""
        return float(self._vectors[one.instance_id] @ self._vectors[other.instance_id])


def embed_issues(
    lights: Iterable[Light], scanned: Sequence[Path], model: str, folder: Path, *, progress: bool = True
) -> EmbeddedSimilarity:
    """Embed the issue of every instance among ``lights`` once.

    Args:
        scanned: files of the first pass, which was told to keep the issues.
        model: name or folder of a sentence-transformers model; code that comes with a model is not run.
        folder: vectors are kept here, so that a killed job does not compute them again.

    Raises:
        TrajectoryError: the library is not installed, or the model cannot be loaded.
    """
    wanted = sorted({light.instance_id for light in lights})
    issues = _issues(scanned, set(wanted))
    name = hashlib.blake2b(json.dumps([model, wanted]).encode(), digest_size=8).hexdigest()
    stored = folder / f"issues-{name}.npy"
    if stored.exists():
        matrix = np.load(stored, allow_pickle=False)
    else:
        encoder = _load(model)
        matrix = encoder.encode(
            [issues[instance] for instance in wanted],
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=progress,
        ).astype(np.float32)
        _save(stored, matrix)
    return EmbeddedSimilarity(dict(zip(wanted, matrix, strict=True)))


def _issues(scanned: Sequence[Path], wanted: set[str]) -> dict[str, str]:
    issues: dict[str, str] = {}
    for path in scanned:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=2048, columns=["instance_id", "issue"]):
            for instance, issue in zip(*(batch.column(index).to_pylist() for index in range(2)), strict=True):
                if instance in wanted:
                    issues.setdefault(instance, issue[:_READ])
    return issues


def _load(model: str) -> Any:
    return load_sentence_encoder(model, "--related-model", TrajectoryError)


def _save(path: Path, matrix: np.ndarray) -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, matrix, allow_pickle=False)
    write_whole(path, buffer.getvalue())
