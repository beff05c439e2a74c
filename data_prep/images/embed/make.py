"""From what a user writes to an embedder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from data_prep.images.embed.base import Embedder
from data_prep.images.errors import ImagePairError

_FORMS = "descriptor, hf:NAME_OR_FOLDER, st:NAME_OR_FOLDER or 'endpoint:URL MODEL [NAME=VALUE ...]'"


@lru_cache(maxsize=2)
def make_embedder(spec: str) -> Embedder:
    """The embedder of that description; the same object for the same one, so that a process loads a model once.

    Args:
        spec: ``descriptor``; ``hf:`` a transformers model; ``st:`` a sentence-transformers model; ``endpoint:`` address
            and model of an embeddings endpoint, then its options (see :mod:`data_prep.images.embed.endpoint`).

    Raises:
        ImagePairError: none of these.
        RemoteError: an endpoint's options that make no sense.
    """
    kind, _, rest = spec.strip().partition(":")
    rest = rest.strip()
    if kind == "descriptor" and not rest:
        from data_prep.images.embed.descriptor import Descriptor

        return Descriptor()
    if kind == "hf" and rest:
        from data_prep.images.embed.encoder import VisionEncoder

        return VisionEncoder(rest)
    if kind == "st" and rest:
        from data_prep.images.embed.sentence import SentenceEncoder

        return SentenceEncoder(rest)
    if kind == "endpoint" and rest:
        from data_prep.images.embed.endpoint import EndpointEmbedder

        return EndpointEmbedder.read(rest.split())
    raise ImagePairError(f"The embedder is {spec!r}. Fix: {_FORMS}.")


def in_one_process(spec: str) -> bool:
    """Whether the work has to stay in one process: an endpoint's concurrency and spending cap are counted there."""
    return spec.strip().startswith("endpoint:")


def settled(spec: str) -> str:
    """The description with whole paths, so that it means the same in any worker's folder."""
    kind, _, rest = spec.strip().partition(":")
    rest = rest.strip()
    if kind in ("hf", "st") and Path(rest).is_dir():
        return f"{kind}:{Path(rest).resolve()}"
    if kind == "endpoint":
        from data_prep.images.embed.endpoint import DEFAULT_CACHE

        words = [word for word in rest.split() if not word.startswith("cache=")]
        caches = [word.partition("=")[2] for word in rest.split() if word.startswith("cache=")]
        return f"endpoint:{' '.join(words)} cache={Path(caches[0] if caches else DEFAULT_CACHE).resolve()}"
    return spec
