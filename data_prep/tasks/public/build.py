"""Rows of a public set, from its files to the trainer's: read, check, split, write."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

import contextrl_verl
from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import Engine, fingerprint, remove, run_parts, total
from data_prep.common.seeded import draw
from data_prep.common.splits import assign_components
from data_prep.images.sources.base import read_options
from data_prep.images.sources.scan import distinct
from data_prep.images.store import ImageStore
from data_prep.tasks.public.locate import locate
from data_prep.tasks.public.record import PublicItem, PublicSet, read_items
from data_prep.tasks.public.rows import fault_of, prompt_of, row_of
from data_prep.tasks.public.scan import plan_parts, scan_public
from data_prep.tasks.public.sets import SETS
from data_prep.tasks.rows import (
    AGENT,
    COLUMNS,
    IMAGES,
    check_out,
    estimated_tokens,
    reasons,
    validation_file,
    write_row_files,
    write_summary,
)

_SHARE = 0.1


@dataclass(frozen=True)
class PublicOptions:
    """What rows to make.

    Attributes:
        validation: share of pictures, or instances, whose rows are for validation; None: the set's own split for that,
            and 0.1 where it has none.
        per_picture: at most so many questions about one picture; 0 for all.
        max_words: of a short answer; longer ones cannot be compared word for word.
        max_tokens: of a prompt, pictures not counted.
        split_by: ``instance`` or ``repository``: what splits of a list of issues never share.
        agent_loop: name of verl's agent loop for the rows of a list of issues; ``""``: one answer, no tools.
        instance: whether rows of issues carry all that an agent loop needs; None: with an agent loop.
        seed: of every choice.
    """

    validation: float | None = None
    per_picture: int = 4
    max_words: int = 6
    max_tokens: int = 8000
    split_by: str = "instance"
    agent_loop: str = ""
    instance: bool | None = None
    seed: int = 1


def public_rows(
    name: str,
    out: Path,
    options: PublicOptions = PublicOptions(),
    *,
    path: str = "",
    split: str = "",
    source_options: Mapping[str, Any] | None = None,
    tokens: Callable[[str], int] = estimated_tokens,
    engine: Engine = "local",
    workers: int | None = None,
    keep_work: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write rows for training to ``out``, for validation beside it, and a summary, which is returned.

    No picture, and no instance, is in both files. A killed run goes on where it was.

    Args:
        name: of the set, see :data:`data_prep.tasks.public.sets.SETS`.
        path: a file, a folder of its files or one that save_to_disk wrote; ``""``: the Hub.
        split: of the set that is read for training; ``""``: its own.
        source_options: ``limit``, ``root``, ``max_pixels``, ...: see
            :class:`data_prep.images.sources.SourceOptions`.

    Raises:
        ConfigError: no such set, nothing to read, no row left, or a bad option; the files are then as they were.
    """
    record = _set(name)
    settings = read_options({"seed": options.seed, **(source_options or {})})
    held_out = _check(record, out, options)
    split = split or record.train
    found = locate(record, path, split, options.validation is None, settings)
    inputs = [(part, rows.name, rows.inputs) for part, rows in found.items()]
    made = fingerprint([contextrl_verl.__version__, name, split, inputs, settings.model_dump()])
    work = out.with_name(f".{out.name}.work") / made
    settings = settings.model_copy(update={"store": str(work / "pictures")})
    payloads = [part for which, rows in found.items() for part in plan_parts(record, which, rows, settings)]
    done = run_parts(
        work / "scan", payloads, scan_public, title=f"Reading {name}", engine=engine, workers=workers, progress=progress
    )
    funnel, paths = total(done), [part.path for part in done]
    # Answers first: what cannot be scored must not stand in for, or speak against, the same question elsewhere.
    items = _fit(list(read_items(paths, whole=False)), record, options, tokens, funnel, progress)
    items = _few(distinct(items, funnel), options, funnel)
    splits = _splits(items, options, "validation" in found, funnel)
    funnel.check()
    wanted = {"train": out} | ({"validation": held_out} if options.validation != 0 else {})
    for part in wanted:
        if part not in splits.values():
            raise ConfigError(f"{name}: no row for {part}; {reasons(funnel)}. Fix: {_FIXES[part]}.")
    with_instance = bool(options.agent_loop) if options.instance is None else options.instance
    bytes_of = lru_cache(maxsize=16)(ImageStore(work / "pictures").read)

    def rows(part: str) -> Iterator[dict[str, Any]]:
        kept = (item for item in read_items(paths, whole=with_instance) if splits.get(item.item_id) == part)
        for index, item in enumerate(tqdm(kept, desc=f"Writing {part}", unit="row", disable=not progress)):
            yield row_of(index, item, record, part, bytes_of, options.agent_loop, with_instance)

    write_row_files({file: rows(part) for part, file in wanted.items()}, _schema(record, options))
    summary = write_summary(
        out, funnel, splits.values(),
        set={"name": name, "hub": record.hub, "subset": record.subset, "split": split, "path": path or None},
        options=asdict(options), kinds=Counter(item.kind for item in items if item.item_id in splits),
    )  # fmt: skip
    if not keep_work:
        remove(work.parent)
    return summary


_FIXES = {
    "train": "mend what the counts name, or give more of the set",
    "validation": "give more of the set, a share with --validation, or --validation 0",
}


def _set(name: str) -> PublicSet:
    if name not in SETS:
        raise ConfigError(
            f"{name!r} is no public set that is known here. Fix: one of {', '.join(SETS)}; other sets of pictures are "
            "read with contextrl tasks vqa --source hf:NAME --column ..."
        )
    return SETS[name]


def _check(record: PublicSet, out: Path, options: PublicOptions) -> Path:
    check_out(out)
    if options.validation is not None and not 0 <= options.validation < 1:
        raise ConfigError(f"--validation is {options.validation}. Fix: a share from 0 to below 1.")
    if options.split_by not in ("instance", "repository"):
        raise ConfigError(f"--split-by is {options.split_by!r}. Fix: instance or repository.")
    if not record.issues and (options.agent_loop or options.instance or options.split_by != "instance"):
        raise ConfigError(
            f"{record.name} asks about pictures. Fix: --agent-loop, --instance and --split-by are for lists of issues "
            f"({', '.join(one.name for one in SETS.values() if one.issues)})."
        )
    held_out = validation_file(out)
    if options.validation == 0 and held_out.exists():
        raise ConfigError(
            f"{held_out} is there from another run, and what it holds would now be trained on. Fix: move it away."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    return held_out


def _schema(record: PublicSet, options: PublicOptions) -> pa.Schema:
    return pa.schema([*COLUMNS, *([] if record.issues else [IMAGES]), *([AGENT] if options.agent_loop else [])])


def _fit(
    items: Sequence[PublicItem],
    record: PublicSet,
    options: PublicOptions,
    tokens: Callable[[str], int],
    funnel: Funnel,
    progress: bool,
) -> list[PublicItem]:
    """Those with an answer that can be scored and a prompt that is not too long."""
    stage = funnel.stage("answers", "questions")
    kept = []
    for item in tqdm(items, desc="Checking answers", unit="question", disable=not progress):
        fault = fault_of(item, record, options.max_words)
        if not fault and tokens(prompt_of(item, options.agent_loop)) > options.max_tokens:
            fault = f"the prompt has more than {options.max_tokens} tokens"
        if fault:
            stage.drop(fault, {"item": item.item_id, "answer": item.answer[:80]})
        else:
            stage.keep()
            kept.append(item)
    return kept


def _few(items: list[PublicItem], options: PublicOptions, funnel: Funnel) -> list[PublicItem]:
    """At most so many questions about one picture."""
    stage = funnel.stage("few", "questions")
    about: dict[str, list[PublicItem]] = defaultdict(list)
    for item in items:
        about[item.image].append(item)
    kept: set[str] = set()
    for asked in about.values():
        order = sorted(asked, key=lambda item: draw(options.seed, item.item_id))
        few = order[: options.per_picture] if options.per_picture else order
        kept.update(item.item_id for item in few)
        stage.keep(len(few))
        if len(asked) > len(few):
            stage.drop("more than are taken of one picture", {"item": order[-1].item_id}, len(asked) - len(few))
    return [item for item in items if item.item_id in kept]


def _splits(items: list[PublicItem], options: PublicOptions, own: bool, funnel: Funnel) -> dict[str, str]:
    """``{item id: train or validation}`` of the items that stay."""
    stage = funnel.stage("rows", "questions")
    if own:
        trained = {unit for item in items if item.split == "train" for unit in item.units(options.split_by)}
        splits = {}
        for item in items:
            if item.split == "validation" and trained.intersection(item.units(options.split_by)):
                stage.drop("for validation, but also in training", {"item": item.item_id})
            else:
                stage.keep()
                splits[item.item_id] = item.split
        return splits
    stage.keep(len(items))
    share = _SHARE if options.validation is None else options.validation
    groups = [item.units(options.split_by) for item in items]
    shares = {"train": 1 - share, "validation": share}
    given = assign_components(groups, shares, seed=options.seed) if items else []
    return {item.item_id: part for item, part in zip(items, given, strict=True)}
