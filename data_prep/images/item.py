"""The forms that the steps of the image side hand to each other: a question about a picture, a couple of pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

Method = Literal["retrieve", "edit"]

ITEM_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("item_id", "image", "question", "answer", "domain", "source", "provenance")]
)
COUPLE_SCHEMA = pa.schema(
    [
        ("question", pa.string()),
        ("images", pa.list_(pa.string())),
        ("answers", pa.list_(pa.string())),
        ("method", pa.string()),
        ("domain", pa.string()),
        ("provenance", pa.list_(pa.string())),
        ("facts", pa.string()),
    ]
)
_ROWS = 1024


@dataclass(frozen=True)
class VqaItem:
    """One question about one picture, from any source.

    Attributes:
        item_id: unique among the items of a job.
        image: content hash under which :class:`data_prep.images.store.ImageStore` holds the picture.
        question, answer: as the source spells them.
        domain: kind of picture, e.g. ``shapes``, ``chart``, ``natural``; a free label.
        source: where it comes from, e.g. ``easy_vqa`` or a file's name.
        provenance: what finds the record again in its source (JSON values).
    """

    item_id: str
    image: str
    question: str
    answer: str
    domain: str
    source: str
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageCouple:
    """Two pictures and one question that they answer differently; becomes two pairs, one in each direction.

    Attributes:
        question: asked of both.
        images: content hashes of the two pictures.
        answers: ``answers[i]`` is what ``images[i]`` supports.
        method: how it was made.
        domain: of both pictures.
        provenance: of each picture: its item's, or how it was edited.
        facts: numbers for the report, e.g. ``cosine`` or ``operation``.
    """

    question: str
    images: tuple[str, str]
    answers: tuple[str, str]
    method: Method
    domain: str
    provenance: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    facts: dict[str, Any] = field(default_factory=dict)


def write_items(items: Iterable[VqaItem], path: Path) -> int:
    """Write items as Parquet, in order; returns how many."""
    rows = ({**asdict(item), "provenance": _json(item.provenance)} for item in items)
    return _write(rows, path, ITEM_SCHEMA)


def read_items(paths: Sequence[Path]) -> Iterator[VqaItem]:
    """The items of several files, in order."""
    for row in _rows(paths):
        yield VqaItem(**{**row, "provenance": json.loads(row["provenance"])})


def write_couples(couples: Iterable[ImageCouple], path: Path) -> int:
    """Write couples as Parquet, in order; returns how many."""
    rows = (
        {**asdict(couple), "provenance": [_json(one) for one in couple.provenance], "facts": _json(couple.facts)}
        for couple in couples
    )
    return _write(rows, path, COUPLE_SCHEMA)


def read_couples(paths: Sequence[Path]) -> Iterator[ImageCouple]:
    """The couples of several files, in order."""
    for row in _rows(paths):
        one, other = (json.loads(text) for text in row["provenance"])
        yield ImageCouple(
            question=row["question"],
            images=tuple(row["images"]),
            answers=tuple(row["answers"]),
            method=row["method"],
            domain=row["domain"],
            provenance=(one, other),
            facts=json.loads(row["facts"]),
        )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, sort_keys=True)


def _write(rows: Iterable[dict[str, Any]], path: Path, schema: pa.Schema) -> int:
    count, held = 0, []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in rows:
            held.append(row)
            count += 1
            if len(held) >= _ROWS:
                writer.write_table(pa.Table.from_pylist(held, schema=schema))
                held = []
        writer.write_table(pa.Table.from_pylist(held, schema=schema))
    return count


def _rows(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS):
            yield from batch.to_pylist()
