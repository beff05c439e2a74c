"""Rows with pictures or issues, of public sets or of any questions: read, check the answers, split, write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field
from tqdm import tqdm

import contextrl_verl
from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import Work, fingerprint, remove, run_parts, total
from data_prep.common.splits import assign_components, draw
from data_prep.images.item import read_items as read_vqa_items
from data_prep.images.sources.base import SourceOptions
from data_prep.images.sources.scan import distinct, plan_source, scan_images
from data_prep.images.store import ImageStore
from data_prep.tasks import rows
from data_prep.tasks.item import Item, fault_of, prompt_of, read_items, row_of
from data_prep.tasks.scan import plan_public, scan_public
from data_prep.tasks.sets import SETS

_SHARE = 0.1
_FIXES = {
    "train": "mend what the counts name, or give more of the source",
    "validation": "give more of the source, raise --validation, or write --validation 0",
}


class TaskSettings(rows.RowSettings):
    """What rows to make, and how the source is read.

    Attributes:
        validation: None: a set's own split for that, and 0.1 where it has none.
        per_picture: at most so many questions about one picture; 0 for all.
        max_words: of a short answer; longer ones cannot be compared word for word.
        tolerance: by which share of the right number a short answer may be off; public sets have their own.
        agent_loop: of verl, for the rows of a list of issues; ``""``: one answer, no tools.
        instance: whether rows of issues carry all that an agent loop needs; None: with an agent loop.
    """

    source: SourceOptions = SourceOptions()
    validation: float | None = Field(None, ge=0, lt=1)
    per_picture: int = Field(4, ge=0)
    max_words: int = Field(6, ge=1)
    tolerance: float = Field(0.0, ge=0, le=1)
    agent_loop: str = ""
    instance: bool | None = None


def public_rows(name: str, out: Path, settings: TaskSettings, *, path: str = "", **run: Any) -> dict[str, Any]:
    """Rows of a public set, see :data:`data_prep.tasks.sets.SETS`; as :func:`vqa_rows`.

    ``path``: a file, a folder of its files or one that save_to_disk wrote; ``""``: the Hub.
    """
    if name not in SETS:
        raise ConfigError(
            f"{name!r} is no public set that is known here. Fix: one of {', '.join(SETS)}; other sets of pictures are "
            "read with contextrl tasks vqa --source hf:NAME --column ..."
        )
    record = SETS[name]
    if not record.issues and (settings.agent_loop or settings.instance or settings.split_by != "instance"):
        raise ConfigError(
            f"{name} asks about pictures. Fix: --agent-loop, --instance and --split-by are for lists of issues "
            f"({', '.join(one.name for one in SETS.values() if one.issues)})."
        )
    rows.check_out(out, settings.validation)
    payloads = plan_public(record, path, settings.validation is None, settings.source)
    read = {"split": settings.source.split or record.train, "path": path or None}
    said = {"source": {"name": name, "hub": record.hub, "subset": record.subset, **read}}
    return _written(name, out, settings, payloads, scan_public, read_items, images=not record.issues, said=said, **run)


def vqa_rows(source: str, out: Path, settings: TaskSettings, **run: Any) -> dict[str, Any]:
    """Write rows for training to ``out``, those for validation and a summary beside it, and return the summary.

    No picture, and no instance, is in both files. A killed run goes on where it was.

    Args:
        source: see :func:`data_prep.images.sources.scan.plan_source`.
        run: ``keep_work``, and what :func:`data_prep.common.pipeline.run_parts` takes.

    Raises:
        ConfigError: nothing to read, no row left, or a bad option; the files are then as they were.
    """
    rows.check_out(out, settings.validation)

    def items(paths: list[Path], whole: bool = False) -> Iterator[Item]:
        for one in read_vqa_items(paths):
            yield Item(
                one.question, one.answer, "short", (one.image,), item_id=one.item_id, name=one.domain,
                tolerance=settings.tolerance,
            )  # fmt: skip

    payloads = plan_source(source, settings.source)
    return _written(source, out, settings, payloads, scan_images, items, images=True, said={"source": source}, **run)


def _written(
    name: str,
    out: Path,
    settings: TaskSettings,
    payloads: list[dict[str, Any]],
    work: Work,
    read: Callable[..., Iterator[Item]],
    *,
    images: bool,
    said: dict[str, Any],
    keep_work: bool = False,
    progress: bool = True,
    **run: Any,
) -> dict[str, Any]:
    folder = out.with_name(f".{out.name}.work") / fingerprint([contextrl_verl.__version__, payloads])
    store = ImageStore(folder / "pictures")
    parts = [{**part, "store": str(store.folder.resolve())} for part in payloads]
    title = f"Reading {name}"
    done = run_parts(folder / "scan", parts, work, title=title, suffix=".jsonl", progress=progress, **run)
    funnel, paths = total(done), [part.path for part in done]
    # Answers first: what cannot be scored must not stand in for, or speak against, the same question elsewhere.
    found = tqdm(read(paths), desc="Checking answers", unit="question", disable=not progress)
    items = _few(distinct(_checked(found, settings, funnel), funnel), settings, funnel)
    own = any(part.get("split") == "validation" for part in payloads)
    splits = _splits(items, settings, own, funnel)
    funnel.check()
    files = {"train": out} | ({"validation": rows.validation_file(out)} if settings.validation != 0 else {})
    for split in files:
        if split not in splits.values():
            raise ConfigError(f"{name}: no row for {split}; {rows.reasons(funnel)}. Fix: {_FIXES[split]}.")
    instance = bool(settings.agent_loop) if settings.instance is None else settings.instance
    bytes_of = lru_cache(maxsize=16)(store.read)

    def of(split: str) -> Iterator[dict[str, Any]]:
        kept = (item for item in read(paths, whole=instance) if splits.get(item.item_id) == split)
        for index, item in enumerate(tqdm(kept, desc=f"Writing {split}", unit="row", disable=not progress)):
            yield row_of(item, index, split, bytes_of, settings.agent_loop, instance)

    more = [column for column, there in ((rows.IMAGES, images), (rows.AGENT, settings.agent_loop)) if there]
    rows.write_row_files({file: of(split) for split, file in files.items()}, pa.schema([*rows.COLUMNS, *more]))
    summary = rows.write_summary(out, funnel, splits.values(), **said, settings=settings.model_dump(mode="json"))
    if not keep_work:
        remove(folder.parent)
    return summary


def _checked(items: Iterator[Item], settings: TaskSettings, funnel: Funnel) -> list[Item]:
    """Those with an answer that can be scored and a prompt that is not too long."""
    stage, kept, tokens = funnel.stage("answers", "questions"), [], rows.token_counter(settings.tokenizer)
    for item in items:
        fault = fault_of(item, settings.max_words)
        if not fault and tokens(prompt_of(item, settings.agent_loop)) > settings.max_tokens:
            fault = f"the prompt has more than {settings.max_tokens} tokens"
        if fault:
            stage.drop(fault, {"item": item.item_id, "answer": item.answer[:80]})
        else:
            stage.keep()
            kept.append(item)
    return kept


def _few(items: list[Item], settings: TaskSettings, funnel: Funnel) -> list[Item]:
    """At most so many questions about one picture."""
    stage, taken, kept = funnel.stage("few", "questions"), Counter(), set()
    for item in sorted(items, key=lambda item: draw(settings.seed, item.item_id)):
        taken[item.image] += 1
        if settings.per_picture and taken[item.image] > settings.per_picture:
            stage.drop("more than are taken of one picture", {"item": item.item_id})
        else:
            stage.keep()
            kept.add(item.item_id)
    return [item for item in items if item.item_id in kept]


def _splits(items: list[Item], settings: TaskSettings, own: bool, funnel: Funnel) -> dict[str, str]:
    """``{item id: train or validation}`` of the items that stay."""
    stage, units = funnel.stage("rows", "questions"), {one.item_id: one.units(settings.split_by) for one in items}
    if not own:
        stage.keep(len(items))
        share = _SHARE if settings.validation is None else settings.validation
        given = assign_components([*units.values()], {"train": 1 - share, "validation": share}, seed=settings.seed)
        return dict(zip(units, given, strict=True))
    trained = {unit for item in items if item.split == "train" for unit in units[item.item_id]}
    splits = {}
    for item in items:
        if item.split == "validation" and trained.intersection(units[item.item_id]):
            stage.drop("for validation, but also in training", {"item": item.item_id})
        else:
            stage.keep()
            splits[item.item_id] = item.split
    return splits
