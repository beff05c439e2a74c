"""The items of all parts together, without repetitions and contradictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from data_prep.common.funnel import Funnel
from data_prep.images.item import VqaItem, read_items

Item = TypeVar("Item")


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
