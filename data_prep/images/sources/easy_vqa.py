"""The package ``easy-vqa``: questions about pictures of one flat shape, 64 pixels a side. It is read, not run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from data_prep.images.sources.base import Found, Lost, Row, RowRejected, SourceOptions, Span, row_ranges

NAME = "easy_vqa"
FORM = "easy_vqa (the package easy-vqa; splits train and test)"
_SPLITS = ("train", "test")


def claims(spec: str) -> bool:
    return spec == NAME


def find(spec: str, options: SourceOptions) -> Found:
    """Raises ConfigError when the package is missing or the split is unknown."""
    split = options.split or "train"
    if split not in _SPLITS:
        raise ConfigError(f"{spec}: split is {split!r}. Fix: one of {', '.join(_SPLITS)}.")
    package = importlib.util.find_spec(NAME)
    if package is None:
        raise ConfigError("easy_vqa: the package is not installed. Fix: pip install easy-vqa.")
    root = str(Path(package.submodule_search_locations[0], "data", split).resolve())
    count = len(_questions(root))
    return Found(
        name=NAME,
        columns=("image", "question", "answer"),
        spans=[{"root": root, "split": split, **part} for part in row_ranges(count, options)],
        keys=lambda: (f"{split}:{index}" for index in range(count)),
        root=root,
        domain="shapes",
        inputs=[split, count, importlib.metadata.version("easy-vqa")],
    )


def rows(span: Span) -> Iterator[Row | Lost]:
    questions = _questions(span["root"])
    for index in range(span["start"], span["stop"]):
        where = {"split": span["split"], "row": index}
        yield Row(f"{span['split']}:{index}", where, partial(_row, questions[index]))


def _row(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, list) or len(entry) != 3:
        raise RowRejected("unreadable row", str(entry)[:200])
    question, answer, image = entry
    return {"image": f"images/{image}.png", "question": question, "answer": answer}


def _questions(root: str) -> list[Any]:
    try:
        return json.loads(Path(root, "questions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{root}: its questions cannot be read ({error}). Fix: install easy-vqa again.") from None
