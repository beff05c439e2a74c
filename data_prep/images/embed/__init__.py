"""Vectors of pictures: :func:`make_embedder` names the ways, :func:`plan_embed` and :func:`embed_part` are the work."""

from data_prep.images.embed.base import Embedder, unit_rows
from data_prep.images.embed.parts import embed_part, in_one_process, make_embedder, plan_embed, settled
from data_prep.images.embed.vectors import Embeddings, load_embeddings

__all__ = [
    "Embedder", "Embeddings", "embed_part", "in_one_process", "load_embeddings", "make_embedder", "plan_embed",
    "settled", "unit_rows",
]  # fmt: skip
