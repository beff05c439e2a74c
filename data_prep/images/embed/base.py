"""What turns pictures into vectors whose product says how much they look alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from contextrl_verl.errors import ConfigError


@runtime_checkable
class Embedder(Protocol):
    """A way to embed pictures.

    Attributes:
        name: says everything the vectors depend on; goes into fingerprints and the report.
        dimension: of a vector; None while it is not known.
    """

    name: str
    dimension: int | None

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) float32, a row of length 1 for each picture of mode RGB.

        A row of NaN stands for a picture that the embedder does not take.
        """
        ...


def unit_rows(vectors: np.ndarray, who: str) -> np.ndarray:
    """Rows divided by their lengths, in float64 and rounded once to float32.

    Args:
        vectors: (N, D) numbers; rows of NaN stay.
        who: made them, for the message.

    Raises:
        ConfigError: another shape, an infinite number or a row of zeros, which has no direction.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ConfigError(f"{who} gives vectors of shape {rows.shape}, not one row a picture. Fix: another model.")
    absent = np.isnan(rows).all(axis=1)
    lengths = np.sqrt((rows**2).sum(axis=1))
    wrong = np.flatnonzero(~absent & ~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        raise ConfigError(
            f"{who} gives a vector of length {lengths[wrong[0]]:g} for picture {wrong[0]} of a batch. "
            "Fix: another model, or another precision if this one overflows."
        )
    return (rows / lengths[:, None]).astype(np.float32)
