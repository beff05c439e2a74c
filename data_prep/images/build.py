"""From couples of pictures to contrastive pairs in both directions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.pairs import ARROW_SCHEMA, Context, ContrastivePair, ImageRef
from data_prep.common.funnel import Funnel
from data_prep.images.item import ImageCouple, read_couples
from data_prep.images.store import ImageStore, encode_alike

DOMAIN = "image"
COUPLES_PER_PART = 512


def plan_build(couples: Path, splits: Sequence[str], store: Path) -> list[dict[str, Any]]:
    """Payloads for :func:`build_part`: the couples of a file and their splits, some at a time."""
    shared = {"couples": str(couples), "store": str(store)}
    return [
        {**shared, "start": start, "splits": list(splits[start : start + COUPLES_PER_PART])}
        for start in range(0, len(splits), COUPLES_PER_PART)
    ]


def build_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Write the pairs of some couples as Parquet, two for each, in order."""
    store = ImageStore(Path(payload["store"]))
    with pq.ParquetWriter(path, ARROW_SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        couples = islice(read_couples([Path(payload["couples"])]), payload["start"], None)
        # The splits come first: zip ends with them, and no couple beyond is read.
        for split, couple in zip(payload["splits"], couples, strict=False):
            rows += [pair.to_row() for pair in pairs_of(couple, store, split)]
        writer.write_table(pa.Table.from_pylist(rows, schema=ARROW_SCHEMA))
    return Funnel()


def pairs_of(couple: ImageCouple, store: ImageStore, split: str) -> Iterator[ContrastivePair]:
    """Both directions of a couple: each picture supports its own answer, the other one confounds.

    Both pictures are encoded in the same way, so that the file does not tell which one was edited.
    """
    contexts = [
        Context(kind="images", images=[ImageRef(bytes=data)])
        for data in encode_alike([store.open(name) for name in couple.images])
    ]
    state = hashlib.blake2b(digest_size=8)
    for part in (couple.method, couple.question, *couple.images, *couple.answers):
        state.update(part.encode("utf-8", "surrogatepass") + b"\0")
    name = state.hexdigest()
    sides = [
        {**couple.provenance[side], "picture": couple.images[side], "edited": couple.method == "edit" and side == 1}
        for side in (0, 1)
    ]
    for side in (0, 1):
        yield ContrastivePair(
            pair_id=f"{couple.method}-{name}-{side}",
            domain=DOMAIN,
            query=couple.question,
            answer=couple.answers[side],
            supporting=contexts[side],
            confounders=[contexts[1 - side]],
            provenance={
                "method": couple.method,
                "domain": couple.domain,
                "couple": name,
                "images": list(couple.images),
                "supporting": sides[side],
                "confounders": [sides[1 - side]],
                **couple.facts,
            },
            split=split,
        )
