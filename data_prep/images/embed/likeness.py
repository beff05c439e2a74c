"""Is this the same picture again, re-encoded or resized? A perceptual hash to look quickly, a small copy to be sure.

The hash alone would not do: flat drawings that differ in one small shape or in a colour have equal hashes, and these
are the couples that are wanted. Encoding again changes every cell of a small copy a little, another shape changes some
cells a lot.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 16
LOOK_BYTES = SIDE * SIDE * 3


def perceptual_hash(image: Image.Image) -> int:
    """imagehash's 64-bit pHash as a number."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)


def look(image: Image.Image) -> np.ndarray:
    """(768,) uint8: the picture's 16 x 16 cells' mean colours."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(small, dtype=np.uint8).reshape(-1)


def hash_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(M,) differing bits of two (M,) uint64 arrays."""
    return np.bitwise_count(one ^ other).astype(np.int64)


def look_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(M,) largest difference of one band of one cell, of two (M, 768) uint8 arrays; 0 to 255."""
    return (np.maximum(one, other) - np.minimum(one, other)).max(axis=1, initial=0).astype(np.int64)
