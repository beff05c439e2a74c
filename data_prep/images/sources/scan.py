"""From a source to items: which one a text names, its work in payloads, the work of one, and all together."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel, Stage
from data_prep.common.splits import draw
from data_prep.images.item import VqaItem, write_records
from data_prep.images.sources import easy_vqa, hf, tables
from data_prep.images.sources.base import Found, Row, SourceOptions
from data_prep.images.sources.values import answer_of, label_of, picture_of, question_of, value_of
from data_prep.images.store import ImageLimits, ImageRejected, ImageStore, open_image

# In the order in which they are asked whether a text names them.
SOURCES: dict[str, Any] = {module.NAME: module for module in (easy_vqa, hf, tables)}
# Of each role; the first that is there is taken.
_ALIASES = {
    "image": ("image", "images", "picture", "img", "image_path", "image_file", "file_name", "filename", "image_bytes"),
    "question": ("question", "query", "problem", "prompt"),
    "answer": ("answer", "ground_truth", "target", "multiple_choice_answer", "reward_model.ground_truth"),
    "domain": ("domain",),
    "id": ("id", "question_id"),
}
Item = TypeVar("Item")


def plan_source(source: str, options: SourceOptions) -> list[dict[str, Any]]:
    """Payloads for :func:`scan_images`, in the source's order; each still needs a ``store``, the pictures' folder.

    They change when the source or an option does, but pictures that a table names by path are not looked at. Raises
    ConfigError: no such source, or a column that cannot be found.
    """
    kind = next((kind for kind, module in SOURCES.items() if module.claims(source)), None)
    if kind is None:
        state = "exists, but holds nothing that is read here" if Path(source).exists() else "is no known source or path"
        forms = "; ".join(module.FORM for module in SOURCES.values())
        raise ConfigError(f"--source {source!r} {state}. Fix: give one of: {forms}.")
    if options.root and not Path(options.root).is_dir():
        raise ConfigError(f"root is {options.root!r}. Fix: give a folder that exists.")
    found = SOURCES[kind].find(source, options)
    columns = _columns(found, options.columns, source)
    wanted = sorted({column if column in found.columns else column.split(".")[0] for column in columns.values()})
    own = {"name": found.name, "columns": columns, "domain": options.domain or found.domain or "image"}
    return [own | part for part in plan_parts(kind, found, wanted, options)]


def plan_parts(kind: str, found: Found, wanted: list[str], options: SourceOptions) -> list[dict[str, Any]]:
    """What :func:`drawn_rows` and :class:`PictureReader` need for each span of a source of that kind."""
    root, highest = options.root or found.root, None
    if options.limit and found.keys is not None:
        # The draw of the last question that is taken: each part then knows its own share.
        drawn = heapq.nsmallest(options.limit, (draw(options.seed, key) for key in found.keys()))
        highest = drawn[-1].hex() if len(drawn) == options.limit else None
    limits = {name: getattr(options, name) for name in ImageLimits.model_fields}
    shared = {"source": kind, "limits": limits, "seed": options.seed, "highest": highest}
    shared["root"] = root and str(Path(root).resolve())
    return [{**shared, "span": {**span, "columns": wanted}} for span in found.spans]


def _columns(found: Found, chosen: Mapping[str, str], spec: str) -> dict[str, str]:
    """``{role: column}``; raises ConfigError that names the columns there are."""
    there, columns = set(found.columns), {}
    for role, names in _ALIASES.items():
        if role in chosen:
            names = (chosen[role],)
        elif role == "image" and found.pictures:
            named = tuple(name for name in names if name in found.pictures)
            names = found.pictures if len(found.pictures) == 1 else named
        match = next((name for name in names if name.split(".")[0] in there), None)
        if match is not None:
            columns[role] = match
        elif role in chosen or role in ("image", "question", "answer"):
            raise ConfigError(
                f"{spec}: there is no column {' or '.join(names) or 'of its own'} for the {role}; columns are "
                f"{sorted(there)}. Fix: name one of them, --set source.columns.{role}=COLUMN."
            )
    return columns


def scan_images(payload: dict[str, Any], path: Path) -> Funnel:
    """Read the span of a payload of :func:`plan_source`; items go to ``path``, pictures into the store.

    The same picture is opened once, however many questions are asked about it. Counts are in stage ``read``.
    """
    funnel = Funnel()
    write_records(_items(payload, funnel.stage("read", "questions"), PictureReader(payload)), path)
    return funnel


def _items(payload: dict[str, Any], stage: Stage, pictures: PictureReader) -> Iterator[VqaItem]:
    for row in drawn_rows(payload, stage):
        try:
            item = _item(payload, row, pictures)
        except ImageRejected as error:
            stage.drop(error.reason, {"source": payload["name"], **row.where, "detail": error.detail})
            continue
        except Exception as error:
            stage.fail(error, {"source": payload["name"], **row.where})
            continue
        stage.keep()
        yield item


def drawn_rows(payload: dict[str, Any], stage: Stage) -> Iterator[Row]:
    """The rows of a part that are drawn; the others are counted."""
    highest, span = bytes.fromhex(payload["highest"] or ""), payload["span"]
    for row in SOURCES[payload["source"]].rows(span):
        if highest and draw(payload["seed"], row.key) > highest:
            stage.drop("left out by the limit", row.where)
        else:
            yield row
    if "left_out" in span:
        stage.drop("left out by the limit", {"detail": "a stream is read from its start"}, count=span["left_out"])


def _item(payload: dict[str, Any], row: Row, pictures: PictureReader) -> VqaItem:
    values = row.load()
    found = {role: value_of(values, column) for role, column in payload["columns"].items()}
    # Texts first: they cost nothing.
    question, answer = question_of(found["question"]), answer_of(found["answer"])
    domain, identity = label_of(found.get("domain")), label_of(found.get("id"))
    image, path = pictures.stored(found["image"])
    provenance = {"source": payload["name"], **row.where}
    provenance |= {name: value for name, value in (("id", identity), ("path", path)) if value}
    name, domain = f"{payload['name']}:{row.key}", domain or payload["domain"]
    return VqaItem(name, image, question, answer, domain, payload["name"], provenance)


class PictureReader:
    """Opens and stores pictures, each once; ``payload`` names ``root``, ``limits`` and ``store``."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.root = Path(payload["root"]) if payload["root"] else None
        self.limits = ImageLimits(**payload["limits"])
        self.store = ImageStore(Path(payload["store"]))
        self._known: dict[bytes | Path, str | ImageRejected] = {}

    def stored(self, value: Any) -> tuple[str, str]:
        """The name in the store of the picture of a row, and its path if it has one; raises ImageRejected."""
        picture, path = picture_of(value, self.root)
        key = hashlib.sha256(picture).digest() if isinstance(picture, bytes) else picture
        if key not in self._known:
            self._known[key] = self._opened(picture)
        if isinstance(known := self._known[key], ImageRejected):
            raise ImageRejected(known.reason, known.detail)
        return known, path

    def _opened(self, picture: bytes | Path) -> str | ImageRejected:
        try:
            if isinstance(picture, Path):
                with picture.open("rb") as file:
                    # A byte more than is allowed says that there are too many.
                    picture = file.read(self.limits.max_bytes + 1)
        except OSError as error:
            return ImageRejected("unreadable file", f"{picture.name}: {error.strerror}")
        try:
            return self.store.put(open_image(picture, self.limits))
        except ImageRejected as error:
            return error


def distinct(items: Iterable[Item], funnel: Funnel) -> list[Item]:
    """Items with ``item_id``, ``image``, ``question`` and ``answer``, in order; counts are in stage ``distinct``.

    A question about a picture that stands there twice is kept once. One that is answered differently in two places is
    not kept at all: nobody knows which answer is right. Case and spaces do not make a difference.
    """

    def plain(text: str) -> str:
        return " ".join(text.casefold().split())

    found = [((item.image, plain(item.question)), item) for item in items]
    stage, answers, kept = funnel.stage("distinct", "questions"), defaultdict(set), {}
    for asked, item in found:
        answers[asked].add(plain(item.answer))
    for asked, item in found:
        if len(answers[asked]) > 1:
            stage.drop("answered differently elsewhere", {"item": item.item_id, "answers": sorted(answers[asked])[:5]})
        elif asked in kept:
            stage.drop("the same question about the same picture", {"item": item.item_id})
        else:
            kept[asked] = item
            stage.keep()
    return list(kept.values())
