"""The work of a part: examples become questions with stored pictures, or counted drops."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.common.funnel import Funnel
from data_prep.common.seeded import draw
from data_prep.images.decode import ImageRejected
from data_prep.images.sources.base import Found, Lost, Row, RowRejected, SourceOptions
from data_prep.images.sources.scan import LEFT_OUT, SOURCES, PictureReader, highest_draw
from data_prep.tasks.public.record import PublicItem, PublicSet, Question, write_items
from data_prep.tasks.public.sets import SETS


def plan_parts(record: PublicSet, split: str, found: Found, options: SourceOptions) -> list[dict[str, Any]]:
    """Payloads for :func:`scan_public`, in the order of the rows; ``options.store`` says where pictures go."""
    wanted = [name for name in (*record.columns, *record.optional) if name in found.columns]
    shared = {
        "set": record.name,
        "split": split,
        "root": found.root,
        "limits": vars(options.limits),
        "seed": options.seed,
        "highest": highest_draw(found, options),
        "store": options.store,
    }
    return [
        {**shared, "source": "hf" if "saved" in span else "table", "span": {**span, "columns": wanted}}
        for span in found.spans
    ]


def scan_public(payload: dict[str, Any], path: Path) -> Funnel:
    """Read the span of a payload; items go to ``path``. Counts are in stages ``examples`` and ``questions``."""
    funnel = Funnel()
    with warnings.catch_warnings():
        # PIL warns of what it then raises, or reads all the same.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        write_items(_items(payload, funnel), path)
    return funnel


def _items(payload: dict[str, Any], funnel: Funnel) -> Iterator[PublicItem]:
    examples, questions = funnel.stage("examples", "examples"), funnel.stage("questions", "questions")
    pictures = PictureReader(payload)
    highest = bytes.fromhex(payload["highest"]) if payload["highest"] else None
    for row in SOURCES[payload["source"]].rows(payload["span"]):
        if isinstance(row, Lost):
            examples.drop(row.reason, {"detail": row.detail}, count=row.count)
            continue
        if highest is not None and draw(payload["seed"], row.key) > highest:
            examples.drop(LEFT_OUT, row.where)
            continue
        try:
            asked = _asked(payload["set"], row)
        except RowRejected as error:
            examples.drop(error.reason, {**row.where, "detail": error.detail})
            continue
        examples.keep()
        for number, question in enumerate(asked):
            try:
                if isinstance(question, RowRejected):
                    raise question
                item = _item(payload, f"{row.key}:{number}", question, pictures)
            except (RowRejected, ImageRejected) as error:
                questions.drop(error.reason, {**row.where, "detail": error.detail})
                continue
            questions.keep()
            yield item


def _asked(name: str, row: Row) -> list[Question | RowRejected]:
    record = SETS[name]
    example = dict.fromkeys((*record.columns, *record.optional)) | row.load()
    return list(record.read(example))


def _item(payload: dict[str, Any], key: str, question: Question, pictures: PictureReader) -> PublicItem:
    stored = tuple(pictures.stored(value)[0] for value in question.pictures)
    item_id = f"{payload['set']}:{payload['split']}:{key}"
    return PublicItem(**vars(question) | {"pictures": stored}, item_id=item_id, split=payload["split"])
