"""Loads a sentence-transformers model, for texts or pictures; code that comes with a model is never run."""

from __future__ import annotations

from typing import Any


def load_sentence_encoder(model: str, option: str, error: type[Exception]) -> Any:
    """The model of that name or folder, on the accelerator if there is one.

    Raises:
        error: the library is not installed or the model cannot be loaded; names the ``option`` that asked for it.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise error(f"{option} needs sentence-transformers. Fix: pip install 'contextrl-verl[embed]'.") from None
    try:
        return SentenceTransformer(model, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as problem:
        raise error(
            f"{option} is {model!r}, which cannot be loaded ({' '.join(str(problem).split())[:300]}). Fix: the "
            "name of a sentence-transformers model, or its folder on this machine."
        ) from None
