"""Vectors of pictures on disk, with what it takes to tell whether two pictures are the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.images.embed.likeness import LOOK_BYTES
from data_prep.images.errors import ImagePairError

_EMBEDDER = b"embedder"


@dataclass(frozen=True)
class Embeddings:
    """Vectors of pictures.

    Attributes:
        embedder: name of what made them.
        images: names of the N pictures in the store.
        vectors: (N, D) float32 rows of length 1.
        hashes: (N,) uint64 perceptual hashes; looks: (N, 768) uint8 small copies.
    """

    embedder: str
    images: list[str]
    vectors: np.ndarray
    hashes: np.ndarray
    looks: np.ndarray

    def rows(self) -> dict[str, int]:
        """Row by name of picture."""
        return {name: row for row, name in enumerate(self.images)}


def write_embeddings(
    path: Path,
    embedder: str,
    images: Sequence[str],
    vectors: Sequence[np.ndarray],
    hashes: Sequence[int],
    looks: Sequence[np.ndarray],
) -> None:
    """Write one file; lists of the same length, which may be 0."""
    dimension = len(vectors[0]) if len(vectors) else 1
    flat = np.concatenate([*vectors, np.zeros(0, np.float32)]).astype(np.float32)
    table = pa.table(
        {
            "image": pa.array(images, pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dimension),
            "hash": pa.array(hashes, pa.uint64()),
            "look": pa.array([one.tobytes() for one in looks], pa.binary(LOOK_BYTES)),
        }
    )
    pq.write_table(table.replace_schema_metadata({_EMBEDDER: embedder.encode()}), path, compression="zstd")


def load_embeddings(paths: Sequence[Path]) -> Embeddings:
    """The vectors of several files, in order, in one array.

    Raises:
        ImagePairError: files of different embedders or dimensions.
    """
    files = [(path, pq.ParquetFile(path)) for path in paths]
    files = [(path, file) for path, file in files if file.metadata.num_rows]
    count = sum(file.metadata.num_rows for _, file in files)
    kinds = {
        (
            (file.schema_arrow.metadata or {}).get(_EMBEDDER, b"").decode(),
            file.schema_arrow.field("vector").type.list_size,
        )
        for _, file in files
    }
    if len(kinds) > 1:
        raise ImagePairError(
            f"The vectors in {files[0][0].parent} are of several kinds: {sorted(kinds)} (embedder, dimensions). "
            "Fix: delete the work folder and run the same command again."
        )
    embedder, dimension = next(iter(kinds), ("", 1))
    images: list[str] = []
    vectors = np.empty((count, dimension), dtype=np.float32)
    hashes = np.empty(count, dtype=np.uint64)
    looks = np.empty((count, LOOK_BYTES), dtype=np.uint8)
    for _, file in files:
        for batch in file.iter_batches(batch_size=1024):
            at = slice(len(images), len(images) + len(batch))
            vectors[at] = batch.column("vector").flatten().to_numpy().reshape(-1, dimension)
            hashes[at] = batch.column("hash").to_numpy()
            looks[at] = np.frombuffer(b"".join(batch.column("look").to_pylist()), np.uint8).reshape(-1, LOOK_BYTES)
            images += batch.column("image").to_pylist()
    return Embeddings(embedder, images, vectors, hashes, looks)
