"""Embeds the pictures of a store."""

from __future__ import annotations

from pathlib import Path

from made_pictures import noisy

from data_prep.common.pipeline import Done, run_parts
from data_prep.images.embed.parts import embed_part, plan_embed
from data_prep.images.store import ImageStore

COUNT = 36


def fill(store: Path) -> list[str]:
    """Names of pictures of several sizes put into the store."""
    return [ImageStore(store).put(noisy(seed, 20 + seed, 30)) for seed in range(COUNT)]


def job(store: Path, folder: Path, embedder: str = "descriptor", **how) -> list[Done]:
    names = [path.stem for path in store.rglob("*.png")]
    plan = plan_embed(names, store, embedder, per_part=3)
    return run_parts(folder, plan, embed_part, title="t", progress=False, **({"workers": 1} | how))
