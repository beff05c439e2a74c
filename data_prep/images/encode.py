"""Pictures as bytes, all in the same way: the file must not tell which of two pictures was edited."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# One setting for all, on every machine: the size of a file then depends on the pixels alone.
_COMPRESSION = 6


def encode_alike(images: Sequence[Image.Image]) -> list[bytes]:
    """Encode pictures as RGB PNG with one setting and nothing but pixels (no profile, text, time or palette)."""
    return [_png(image) for image in images]


def _png(image: Image.Image) -> bytes:
    from PIL import Image

    # A new picture from the pixels alone: whatever else the object carries (EXIF, ICC profile, text) stays behind.
    plain = Image.fromarray(_pixels(image))
    target = io.BytesIO()
    plain.save(target, format="PNG", compress_level=_COMPRESSION)
    return target.getvalue()


def _pixels(image: Image.Image):
    import numpy as np

    return np.ascontiguousarray(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))
