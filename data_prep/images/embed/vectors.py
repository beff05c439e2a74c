"""Vectors of pictures on disk, with what it takes to tell whether two pictures are the same one, encoded or sized anew.

A perceptual hash alone would not do: flat drawings that differ in one small shape or in a colour have equal hashes, and
these are the couples that are wanted. Encoding again changes every cell of a small copy a little, another shape changes
some cells a lot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from contextrl_verl.errors import ConfigError

_SIDE = 16
LOOK_BYTES = _SIDE * _SIDE * 3


def perceptual_hash(image: Image.Image) -> int:
    """imagehash's 64-bit pHash as a number."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)


def look(image: Image.Image) -> np.ndarray:
    """(768,) uint8: the picture's 16 x 16 cells' mean colours."""
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=None), np.uint8).reshape(-1)


def hash_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(M,) differing bits of two (M,) uint64 arrays."""
    return np.bitwise_count(one ^ other).astype(np.int64)


def look_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(M,) largest difference of one band of one cell, of two (M, 768) uint8 arrays; 0 to 255."""
    return (np.maximum(one, other) - np.minimum(one, other)).max(axis=1, initial=0).astype(np.int64)


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


def write_embeddings(path: Path, found: Embeddings) -> None:
    """Write one file of NumPy's; without pickles."""
    with path.open("wb") as file:
        np.savez(file, **{**vars(found), "images": np.array(found.images, dtype="U32")})


def load_embeddings(paths: Sequence[Path]) -> Embeddings:
    """The vectors of several files, in order, in one array.

    Raises:
        ConfigError: files of different embedders or dimensions.
    """
    files = [dict(np.load(path)) for path in paths]
    files = [file for file in files if len(file["images"])]
    kinds = {(str(file["embedder"]), file["vectors"].shape[1]) for file in files}
    if len(kinds) > 1:
        raise ConfigError(
            f"The vectors in {paths[0].parent} are of several kinds: {sorted(kinds)} (embedder, dimensions). Fix: "
            "delete the work folder and run the same command again."
        )
    embedder, dimension = next(iter(kinds), ("", 1))
    none = {"vectors": np.zeros((0, dimension), np.float32), "hashes": np.zeros(0, np.uint64),
            "looks": np.zeros((0, LOOK_BYTES), np.uint8)}  # fmt: skip
    whole = {name: np.concatenate([start, *(file.pop(name) for file in files)]) for name, start in none.items()}
    return Embeddings(embedder, [name for file in files for name in file["images"].tolist()], **whole)
