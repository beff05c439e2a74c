"""Rows for verl's trainer: a picture, a question about it, and the short answer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

import contextrl_verl
from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import Engine, fingerprint, remove, run_parts, total
from data_prep.common.seeded import draw
from data_prep.images.item import VqaItem
from data_prep.images.sources import describe_source, load_items, plan_source, scan_images
from data_prep.images.store import ImageStore
from data_prep.tasks.rows import (
    COLUMNS,
    IMAGES,
    check_out,
    reasons,
    validation_file,
    write_row_files,
    write_summary,
)  # fmt: skip
from reward_fns.exact_match import normalise

DATA_SOURCE = "contextrl/vqa"
SCHEMA = pa.schema([*COLUMNS, IMAGES])
_PROMPT = (
    "<image>\n{question}\nYour answer is a word, a number or a short phrase. End with it, and nothing else, inside "
    "<answer></answer>."
)


@dataclass(frozen=True)
class VqaOptions:
    """What rows to make.

    Attributes:
        per_picture: at most so many questions about one picture; 0 for all.
        validation: share of pictures whose rows are for validation.
        max_words: of an answer; longer ones cannot be compared word for word.
        tolerance: by which share of the right number an answer may be off.
        seed: of every choice.
    """

    per_picture: int = 4
    validation: float = 0.1
    max_words: int = 6
    tolerance: float = 0.0
    seed: int = 1


def vqa(
    source: str,
    out: Path,
    options: VqaOptions = VqaOptions(),
    source_options: Mapping[str, Any] | None = None,
    *,
    engine: Engine = "local",
    workers: int | None = None,
    keep_work: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write rows for training to ``out``, for validation beside it (:func:`validation_file`), and a summary.

    No picture is in both files. A killed run goes on where it was.

    Args:
        source: see :func:`data_prep.images.sources.plan_source`.
        source_options: see :class:`data_prep.images.sources.SourceOptions`.

    Returns:
        The summary.

    Raises:
        ConfigError: nothing to read, no row left, or a bad option; the files are then as they were.
    """
    held_out = _check(out, options)
    seeded = {"seed": options.seed, **(source_options or {})}
    work = out.with_name(f".{out.name}.work") / fingerprint(
        [contextrl_verl.__version__, describe_source(source, seeded)]
    )
    store = ImageStore(work / "pictures")
    payloads = plan_source(source, {**seeded, "store": str(store.folder)})
    done = run_parts(
        work / "scan", payloads, scan_images, title="Reading pictures", suffix=".jsonl", engine=engine, workers=workers,
        progress=progress,
    )  # fmt: skip
    funnel = total(done)
    items = _chosen(load_items([part.path for part in done], funnel), options, funnel)
    funnel.check()
    splits = {item.image: split_of(item.image, options) for item in items}
    wanted = {"train": out} | ({"validation": held_out} if options.validation else {})
    for split in wanted:
        if split not in splits.values():
            raise ConfigError(f"{source}: no row for {split}; {reasons(funnel)}. Fix: {_FIXES[split]}.")
    bytes_of = lru_cache(maxsize=16)(store.read)

    def rows(split: str) -> Iterator[dict[str, Any]]:
        for index, item in enumerate(item for item in items if splits[item.image] == split):
            yield _row(index, item, split, bytes_of, options)

    write_row_files({path: rows(split) for split, path in wanted.items()}, SCHEMA)
    summary = write_summary(
        out, funnel, [splits[item.image] for item in items], pictures=Counter(splits.values()),
        domains=Counter(item.domain for item in items),
        answers=dict(Counter(normalise(item.answer) for item in items).most_common(20)),
    )  # fmt: skip
    if not keep_work:
        remove(work.parent)
    return summary


_FIXES = {
    "train": "mend what the counts name, or give a larger source",
    "validation": "raise --validation, give more pictures, or write --validation 0",
}


def split_of(image: str, options: VqaOptions) -> str:
    """``validation`` or ``train``: the same for all questions about a picture."""
    share = int.from_bytes(draw(options.seed, "split", image), "big") / 2**64
    return "validation" if share < options.validation else "train"


def _check(out: Path, options: VqaOptions) -> Path:
    """The file for validation; raises ConfigError for what cannot be written."""
    check_out(out)
    if not 0 <= options.validation < 1 or not 0 <= options.tolerance <= 1:
        raise ConfigError(
            f"--validation is {options.validation}, --tolerance {options.tolerance}. Fix: shares from 0 to 1, "
            "--validation below 1."
        )
    held_out = validation_file(out)
    if not options.validation and held_out.exists():
        raise ConfigError(
            f"{held_out} is there from another run, and pictures of it would now be trained on. Fix: move it away."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    return held_out


def _chosen(items: list[VqaItem], options: VqaOptions, funnel: Funnel) -> list[VqaItem]:
    fit, taken = funnel.stage("answers", "questions"), funnel.stage("rows", "questions")
    about: dict[str, list[VqaItem]] = defaultdict(list)
    for item in items:
        words = normalise(item.answer).split()
        if not words:
            fit.drop("the answer has no letter or digit that a comparison would see", {"item": item.item_id})
        elif len(words) > options.max_words:
            fit.drop(f"the answer has more than {options.max_words} words", {"item": item.item_id})
        else:
            fit.keep()
            about[item.image].append(item)
    kept: set[str] = set()
    for asked in about.values():
        order = sorted(asked, key=lambda item: draw(options.seed, item.item_id))
        few = order[: options.per_picture] if options.per_picture else order
        kept.update(item.item_id for item in few)
        taken.keep(len(few))
        if len(asked) > len(few):
            taken.drop("more than are taken of one picture", {"item": order[-1].item_id}, len(asked) - len(few))
    return [item for item in items if item.item_id in kept]


def _row(index: int, item: VqaItem, split: str, bytes_of: Any, options: VqaOptions) -> dict[str, Any]:
    return {
        "data_source": f"{DATA_SOURCE}/{item.domain}",
        "prompt": [{"role": "user", "content": _PROMPT.format(question=item.question)}],
        "images": [{"bytes": bytes_of(item.image), "path": None}],
        "ability": "visual_question_answering",
        "reward_model": {"style": "rule", "ground_truth": item.answer},
        "extra_info": {
            "index": index,
            "kind": item.domain,
            "split": split,
            "question": item.question,
            "picture": item.image,
            "item": item.item_id,
            "tolerance": options.tolerance,
        },
    }
