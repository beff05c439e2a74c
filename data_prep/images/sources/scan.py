"""The work of a part: every row becomes a question about a stored picture, or a counted drop."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.common.funnel import Funnel, Stage
from data_prep.common.seeded import draw
from data_prep.images.decode import ImageLimits, ImageRejected, open_image
from data_prep.images.item import VqaItem, write_items
from data_prep.images.sources.columns import answer_of, label_of, question_of, value_of
from data_prep.images.sources.pictures import Picture, picture_of
from data_prep.images.sources.types import Lost, Row, RowRejected
from data_prep.images.store import ImageStore

LEFT_OUT = "left out by the limit"


def scan_images(payload: dict[str, Any], path: Path) -> Funnel:
    """Read the span of a payload of :func:`plan_source`; items go to ``path`` as Parquet, pictures into the store.

    The same picture is opened once, however many questions are asked about it. Counts are in stage ``read``.
    """
    funnel = Funnel()
    with warnings.catch_warnings():
        # PIL warns of what it then raises, or reads all the same.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        write_items(_items(payload, funnel.stage("read", "questions")), path)
    return funnel


def _items(payload: dict[str, Any], stage: Stage) -> Iterator[VqaItem]:
    from data_prep.images.sources.plan import SOURCES

    pictures = PictureReader(payload)
    highest = bytes.fromhex(payload["highest"]) if payload["highest"] else None
    for row in SOURCES[payload["source"]].rows(payload["span"]):
        if isinstance(row, Lost):
            stage.drop(row.reason, {"source": payload["name"], "detail": row.detail}, count=row.count)
            continue
        if highest is not None and draw(payload["seed"], row.key) > highest:
            stage.drop(LEFT_OUT, _sample(payload, row))
            continue
        try:
            item = _item(payload, row, pictures)
        except (RowRejected, ImageRejected) as error:
            stage.drop(error.reason, {**_sample(payload, row), "detail": error.detail})
            continue
        stage.keep()
        yield item


def _sample(payload: dict[str, Any], row: Row) -> dict[str, Any]:
    return {"source": payload["name"], **row.where}


def _item(payload: dict[str, Any], row: Row, pictures: PictureReader) -> VqaItem:
    columns = payload["columns"]
    values = row.load()
    found = {role: value_of(values, column) for role, column in columns.items()}
    # Texts first: they cost nothing.
    question, answer = question_of(found["question"]), answer_of(found["answer"])
    domain, identity = label_of(found.get("domain")), label_of(found.get("id"))
    image, picture = pictures.stored(found["image"])
    provenance = {"source": payload["name"], **row.where}
    provenance |= {"id": identity} if identity else {}
    provenance |= {"path": picture.path} if picture.path else {}
    return VqaItem(
        item_id=f"{payload['name']}:{row.key}",
        image=image,
        question=question,
        answer=answer,
        domain=domain or payload["domain"],
        source=payload["name"],
        provenance=provenance,
    )


class PictureReader:
    """Opens and stores pictures, each once; ``payload`` names ``root``, ``limits`` and ``store``."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.root = Path(payload["root"]) if payload["root"] else None
        self.limits = ImageLimits(**payload["limits"])
        self.store = ImageStore(Path(payload["store"]))
        self.paths: dict[str, Picture] = {}
        self.known: dict[str, str | ImageRejected] = {}

    def stored(self, value: Any) -> tuple[str, Picture]:
        """The name in the store of the picture of a row; raises ImageRejected."""
        picture = self.paths.get(value) if isinstance(value, str) else None
        if picture is None:
            picture = picture_of(value, self.root)
            if isinstance(value, str) and picture.file is not None:
                self.paths[value] = picture
        known = self.known.get(picture.key)
        if known is None:
            try:
                known = self.store.put(open_image(picture.read(self.limits.max_bytes), self.limits))
            except ImageRejected as error:
                known = error
            self.known[picture.key] = known
        if isinstance(known, ImageRejected):
            raise ImageRejected(known.reason, known.detail)
        return known, picture
