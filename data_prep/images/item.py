"""What the steps of the image side hand to each other: questions about pictures, couples of pictures; JSON a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Method = Literal["retrieve", "edit"]


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


def write_records(records: Iterable[VqaItem | ImageCouple], path: Path) -> None:
    """Write items or couples, in order."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(json.dumps(asdict(record), sort_keys=True) + "\n" for record in records)


def read_items(paths: Sequence[Path]) -> Iterator[VqaItem]:
    """The items of several files, in order."""
    return (VqaItem(**record) for record in _records(paths))


def read_couples(paths: Sequence[Path]) -> Iterator[ImageCouple]:
    """The couples of several files, in order."""
    for record in _records(paths):
        yield ImageCouple(**record | {name: tuple(record[name]) for name in ("images", "answers", "provenance")})


def _records(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with path.open(encoding="ascii") as file:
            yield from map(json.loads, file)
