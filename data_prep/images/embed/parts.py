"""From what a user writes to an embedder, and its work in parts: names of stored pictures in, vectors out."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.images.embed.base import Embedder
from data_prep.images.embed.vectors import LOOK_BYTES, Embeddings, look, perceptual_hash, write_embeddings
from data_prep.images.store import ImageStore

PICTURES_PER_PART = 1024
_BATCH = 64
_FORMS = "descriptor, hf:NAME_OR_FOLDER, st:NAME_OR_FOLDER or 'endpoint:MODEL base_url=URL [NAME=VALUE ...]'"


@lru_cache(maxsize=2)
def make_embedder(spec: str) -> Embedder:
    """The embedder of that description; the same object for the same one, so that a process loads a model once.

    Args:
        spec: ``descriptor``; ``hf:`` a transformers model; ``st:`` a sentence-transformers model; ``endpoint:`` a model
            behind an embeddings endpoint, as ``NAME=VALUE`` with blanks between (:class:`EmbedderSpec`).

    Raises:
        ConfigError: none of these, or an endpoint's options that make no sense.
    """
    kind, rest = _split(spec)
    if kind == "descriptor" and not rest:
        from data_prep.images.embed.descriptor import Descriptor

        return Descriptor()
    if kind in ("hf", "st") and rest:
        from data_prep.images.embed.models import SentenceEncoder, VisionEncoder

        return VisionEncoder(rest) if kind == "hf" else SentenceEncoder(rest)
    if kind == "endpoint" and rest:
        from data_prep.images.embed.endpoint import EndpointEmbedder, read_embedder

        return EndpointEmbedder(read_embedder(rest))
    raise ConfigError(f"The embedder is {spec!r}. Fix: {_FORMS}.")


def in_one_process(spec: str) -> bool:
    """Whether the work has to stay in one process: an endpoint's concurrency and spending cap are counted there."""
    return _split(spec)[0] == "endpoint"


def settled(spec: str) -> str:
    """The description with whole paths, so that it means the same in any worker's folder."""
    kind, rest = _split(spec)
    if kind in ("hf", "st") and Path(rest).is_dir():
        return f"{kind}:{Path(rest).resolve()}"
    if kind == "endpoint":
        from data_prep.images.embed.endpoint import read_embedder

        named = read_embedder(rest)
        words = named.model_copy(update={"cache": named.cache.resolve()}).model_dump(mode="json", exclude_unset=True)
        return "endpoint:" + " ".join(f"{name}={value}" for name, value in words.items())
    return spec


def _split(spec: str) -> tuple[str, str]:
    kind, _, rest = spec.strip().partition(":")
    return kind, rest.strip()


def plan_embed(
    images: Iterable[str], store: Path, embedder: str = "descriptor", *, per_part: int = PICTURES_PER_PART
) -> list[dict[str, Any]]:
    """Payloads for :func:`embed_part`; each picture once, in the order of the names.

    Args:
        images: names of pictures in the store; repeats are fine.
        store: folder of the :class:`ImageStore`.
        embedder: description, see :func:`make_embedder`.
        per_part: pictures of a part; a part is what a killed job does again.
    """
    names = sorted(set(images))
    common = {"store": str(Path(store).resolve()), "embedder": settled(embedder)}
    return [{**common, "images": names[start : start + per_part]} for start in range(0, len(names), per_part)]


def embed_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Embed the pictures of a payload; writes vectors, perceptual hashes and small copies.

    Raises:
        ConfigError: a picture is not in the store, or the embedder cannot be used.
    """
    store, embedder = ImageStore(Path(payload["store"])), make_embedder(payload["embedder"])
    funnel = Funnel()
    stage = funnel.stage("embed", "pictures")
    names: list[str] = []
    vectors, hashes, looks = [], [], []
    for start in range(0, len(payload["images"]), _BATCH):
        batch = payload["images"][start : start + _BATCH]
        pictures = [store.open(name) for name in batch]
        for name, picture, row in zip(batch, pictures, embedder.embed(pictures), strict=True):
            if np.isnan(row).any():
                stage.drop("refused by the embedder", {"images": [name]})
                continue
            stage.keep()
            names.append(name)
            vectors.append(row)
            hashes.append(perceptual_hash(picture))
            looks.append(look(picture))
    rows = np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)
    small = np.array(looks, np.uint8).reshape(-1, LOOK_BYTES)
    write_embeddings(path, Embeddings(embedder.name, names, rows, np.array(hashes, np.uint64), small))
    return funnel
