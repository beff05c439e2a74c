"""Embedding in parts, for :func:`data_prep.common.pipeline.run_parts`: names of stored pictures in, vectors out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.common.funnel import Funnel
from data_prep.images.embed.likeness import look, perceptual_hash
from data_prep.images.embed.make import make_embedder, settled
from data_prep.images.embed.vectors import write_embeddings
from data_prep.images.store import ImageStore

PICTURES_PER_PART = 1024
_BATCH = 64


def plan_embed(
    images: Iterable[str], store: Path, embedder: str = "descriptor", *, per_part: int = PICTURES_PER_PART
) -> list[dict[str, Any]]:
    """Payloads for :func:`embed_part`; each picture once, in the order of the names.

    Args:
        images: names of pictures in the store; repeats are fine.
        store: folder of the :class:`ImageStore`.
        embedder: description, see :func:`data_prep.images.embed.make.make_embedder`.
        per_part: pictures of a part; a part is what a killed job does again.
    """
    names = sorted(set(images))
    common = {"store": str(Path(store).resolve()), "embedder": settled(embedder)}
    return [{**common, "images": names[start : start + per_part]} for start in range(0, len(names), per_part)]


def embed_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Embed the pictures of a payload; writes vectors, perceptual hashes and small copies as Parquet.

    Raises:
        ImagePairError: a picture is not in the store, or the embedder cannot be used.
        RemoteError: an endpoint cannot be used.
    """
    store, embedder = ImageStore(Path(payload["store"])), make_embedder(payload["embedder"])
    funnel = Funnel()
    stage = funnel.stage("embed", "pictures")
    names: list[str] = []
    vectors, hashes, looks = [], [], []
    for start in range(0, len(payload["images"]), _BATCH):
        batch = payload["images"][start : start + _BATCH]
        pictures = [store.open(name) for name in batch]
        rows = embedder.embed(pictures)
        for name, picture, row in zip(batch, pictures, rows, strict=True):
            if np.isnan(row).any():
                stage.drop("refused by the embedder", {"images": [name]})
                continue
            stage.keep()
            names.append(name)
            vectors.append(row)
            hashes.append(perceptual_hash(picture))
            looks.append(look(picture))
    write_embeddings(path, embedder.name, names, vectors, hashes, looks)
    return funnel
