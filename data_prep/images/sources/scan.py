"""From a source to items: which one a text names, its work in payloads, the work of one, and all together."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel, Stage
from data_prep.common.seeded import draw
from data_prep.images.decode import ImageLimits, ImageRejected, open_image
from data_prep.images.item import VqaItem, read_items, write_items
from data_prep.images.sources import easy_vqa, hf, tables
from data_prep.images.sources.base import ROLES, Found, Lost, Row, Source, SourceOptions, read_options
from data_prep.images.sources.values import Picture, answer_of, label_of, picture_of, question_of, value_of
from data_prep.images.store import ImageStore

# In the order in which they are asked whether a text names them.
SOURCES: dict[str, Source] = {module.NAME: cast(Source, module) for module in (easy_vqa, hf, tables)}
# Of each role; the first that is there is taken.
_ALIASES = {
    "image": ("image", "images", "picture", "img", "image_path", "image_file", "file_name", "filename", "image_bytes"),
    "question": ("question", "query", "problem", "prompt"),
    "answer": ("answer", "ground_truth", "target", "multiple_choice_answer", "reward_model.ground_truth"),
    "domain": ("domain",),
    "id": ("id", "question_id"),
}
LEFT_OUT = "left out by the limit"
Item = TypeVar("Item")


def plan_source(source: str, options: Mapping[str, Any] | SourceOptions) -> list[dict[str, Any]]:
    """Payloads for :func:`scan_images`, in the source's order.

    Args:
        source: ``easy_vqa``, ``hf:NAME``, or the path of a file or folder.
        options: see :class:`SourceOptions`. Without ``store``, every payload needs one added before it is worked on.

    Raises:
        ConfigError: no such source, a wrong option, or a column that cannot be found.
    """
    settings = read_options(options)
    found, kind = _find(source, settings)
    columns = _columns(found, settings.columns, source)
    wanted = sorted({column if column in found.columns else column.split(".")[0] for column in columns.values()})
    shared = {
        "source": kind,
        "name": settings.name or found.name,
        "columns": columns,
        "root": found.root,
        "domain": settings.domain or found.domain or "image",
        "limits": vars(settings.limits),
        "seed": settings.seed,
        "highest": highest_draw(found, settings),
        "store": settings.store,
    }
    return [{**shared, "span": {**span, "columns": wanted}} for span in found.spans]


def describe_source(source: str, options: Mapping[str, Any] | SourceOptions) -> list[Any]:
    """What tells that a source or its options have changed, for :func:`data_prep.common.pipeline.fingerprint`.

    Pictures that a table names by path are not looked at. Raises as :func:`plan_source`.
    """
    settings = read_options(options)
    found, kind = _find(source, settings)
    return [kind, found.name, found.inputs, settings.model_dump(exclude={"store"})]


def _find(source: str, settings: SourceOptions) -> tuple[Found, str]:
    if settings.root and not Path(settings.root).is_dir():
        raise ConfigError(f"root is {settings.root!r}. Fix: give a folder that exists.")
    for kind, module in SOURCES.items():
        if module.claims(source):
            return module.find(source, settings), kind
    state = "exists, but holds nothing that is read here" if Path(source).exists() else "is no known source or path"
    forms = "; ".join(module.FORM for module in SOURCES.values())
    raise ConfigError(f"--source {source!r} {state}. Fix: give one of: {forms}.")


def highest_draw(found: Found, settings: SourceOptions) -> str | None:
    """The draw of the last question that is taken; None takes all. Each part then knows its own share."""
    if not settings.limit or found.keys is None:
        return None
    drawn = heapq.nsmallest(settings.limit, (draw(settings.seed, key) for key in found.keys()))
    return drawn[-1].hex() if len(drawn) == settings.limit else None


def _columns(found: Found, chosen: Mapping[str, str], spec: str) -> dict[str, str]:
    """``{role: column}``; raises ConfigError that names the columns there are."""
    there = set(found.columns)
    columns = {}
    for role in ROLES:
        aliases = _ALIASES[role]
        if role in chosen:
            if chosen[role].split(".")[0] not in there:
                raise ConfigError(
                    f"{spec}: there is no column {chosen[role]!r} for the {role}; columns are {sorted(there)}. "
                    f"Fix: name one of them with {role}=COLUMN."
                )
            columns[role] = chosen[role]
            continue
        if role == "image" and found.pictures:
            aliases = _pictures(found, aliases, spec)
        match = next((alias for alias in aliases if alias.split(".")[0] in there), None)
        if match is not None:
            columns[role] = match
        elif role in ("image", "question", "answer"):
            raise ConfigError(
                f"{spec}: no column is known to be the {role}; columns are {sorted(there)}. "
                f"Fix: name it with {role}=COLUMN (looked for: {', '.join(aliases)})."
            )
    return columns


def _pictures(found: Found, aliases: tuple[str, ...], spec: str) -> tuple[str, ...]:
    named = [alias for alias in aliases if alias in found.pictures]
    if not named and len(found.pictures) > 1:
        raise ConfigError(
            f"{spec}: several columns hold pictures: {sorted(found.pictures)}. Fix: name one with image=COLUMN."
        )
    return tuple(named or found.pictures)


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
        except ImageRejected as error:
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


def load_items(paths: Sequence[Path], funnel: Funnel) -> list[VqaItem]:
    """The items of the files, in order; counts are in stage ``distinct``.

    A question about a picture that stands there twice is kept once. One that is answered differently in two places is
    not kept at all: nobody knows which answer is right. Case and spaces do not make a difference.
    """
    return distinct(list(read_items(paths)), funnel)


def distinct(items: list[Item], funnel: Funnel) -> list[Item]:
    """Those of :func:`load_items`, for anything with its ``item_id``, ``image``, ``question`` and ``answer``."""
    stage = funnel.stage("distinct", "questions")
    answers: dict[tuple[str, str], set[str]] = {}
    for item in items:
        answers.setdefault(_asked(item), set()).add(_same(item.answer))
    kept: list[Item] = []
    seen: set[tuple[str, str]] = set()
    for item in items:
        asked = _asked(item)
        if len(answers[asked]) > 1:
            stage.drop("answered differently elsewhere", {"item": item.item_id, "answers": sorted(answers[asked])[:5]})
        elif asked in seen:
            stage.drop("the same question about the same picture", {"item": item.item_id})
        else:
            seen.add(asked)
            stage.keep()
            kept.append(item)
    return kept


def _asked(item: Any) -> tuple[str, str]:
    return item.image, _same(item.question)


def _same(text: str) -> str:
    return " ".join(text.casefold().split())
