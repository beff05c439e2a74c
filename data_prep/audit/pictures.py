"""Groups for image pairs: traces in the pixels that say nothing of what is shown, and whether a picture was edited.

Traces are not crossed with the answer, as the form of text is: how many colours or edges a picture has follows from
what it shows (a circle has more than a rectangle), so together with the answer they are evidence. The shortcut to fear
runs over "edited": if even the true flag, matched with the answer's words, tells nothing, no trace of editing can.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from contextrl_verl.pairs import ImageRef
from data_prep.audit.features import answer_form
from data_prep.audit.identity import hashed_words
from data_prep.audit.registry import FeatureGroup, register
from data_prep.audit.view import AuditError, ContextView, PairView

_ANSWER_BUCKETS = 64


def _forensic(context: ContextView) -> list[float]:
    """Means over the context's pictures, as logarithms: compression, noise, sharpness, edges, colours."""
    if not context.references:
        return [0.0] * _count()
    rows = [_numbers(reference, context) for reference in context.references]
    return [float(value) for value in np.mean(rows, axis=0)]


@lru_cache(maxsize=1)
def _count() -> int:
    from PIL import Image

    from data_prep.images.forensics import image_features

    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "PNG")
    return len(image_features(stream.getvalue()))


def _numbers(reference: ImageRef, context: ContextView) -> list[float]:
    from data_prep.images.decode import ImageRejected
    from data_prep.images.forensics import image_features

    data = reference.bytes if reference.bytes is not None else Path(reference.path).read_bytes()
    try:
        found = image_features(data)
    except ImageRejected as error:
        raise AuditError(f"an image of {len(data)} bytes cannot be opened ({error}). Fix: drop the pair.") from None
    return [float(np.sign(value) * np.log1p(abs(value))) for _, value in sorted(found.items())]


def _forensics(view: PairView) -> np.ndarray:
    return np.asarray([context.once(_forensic) for context in view.contexts], np.float32)


def _edited(view: PairView) -> np.ndarray:
    """[contexts, 1] whether the provenance calls the picture of a context edited."""
    provenance: dict[str, Any] = view.pair.provenance
    sides = [provenance.get("supporting"), *(provenance.get("confounders") or [])]
    flags = [float(isinstance(side, dict) and side.get("edited") is True) for side in sides]
    if len(flags) != len(view.contexts):
        flags = [0.0] * len(view.contexts)
    return np.asarray(flags, np.float32)[:, None]


def _answer_words(view: PairView) -> np.ndarray:
    return np.concatenate([answer_form(view), hashed_words(view.answer, _ANSWER_BUCKETS)])


register(FeatureGroup("forensics", "compression, noise, sharpness, edges and number of colours", columns=_forensics))
register(FeatureGroup("edited", "whether a picture was edited", columns=_edited))
register(
    FeatureGroup(
        "edited x answer",
        "whether a picture was edited; matched with words, length and shape of the answer",
        crossed=(_edited, _answer_words),
    )
)
