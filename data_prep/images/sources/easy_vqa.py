"""The package ``easy-vqa``: questions about pictures of one flat shape, 64 pixels a side. It is read, not run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.images.errors import ImagePairError
from data_prep.images.sources.options import SourceOptions
from data_prep.images.sources.types import Found, Lost, Row, RowRejected, Span

NAME = "easy_vqa"
FORM = "easy_vqa (the package easy-vqa; splits train and test)"
_SPLITS = ("train", "test")


def claims(spec: str) -> bool:
    return spec == NAME


def find(spec: str, options: SourceOptions) -> Found:
    """Raises ImagePairError when the package is missing or the split is unknown."""
    split = options.split or "train"
    if split not in _SPLITS:
        raise ImagePairError(f"{spec}: split is {split!r}. Fix: one of {', '.join(_SPLITS)}.")
    root = _folder() / split
    count = len(_questions(root))
    spans = [
        {"root": str(root), "split": split, "start": start, "stop": min(start + options.part_rows, count)}
        for start in range(0, count, options.part_rows)
    ]
    return Found(
        name=NAME,
        columns=("image", "question", "answer"),
        spans=spans,
        keys=lambda: (f"{split}:{index}" for index in range(count)),
        root=str(root),
        domain="shapes",
        inputs=[split, count, importlib.metadata.version("easy-vqa")],
    )


def rows(span: Span) -> Iterator[Row | Lost]:
    questions = _questions(Path(span["root"]))
    for index in range(span["start"], span["stop"]):
        where = {"split": span["split"], "row": index}
        yield Row(f"{span['split']}:{index}", where, partial(_row, questions[index]))


def _row(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, list) or len(entry) != 3:
        raise RowRejected("unreadable row", str(entry)[:200])
    question, answer, image = entry
    return {"image": f"images/{image}.png", "question": question, "answer": answer}


def _folder() -> Path:
    found = importlib.util.find_spec(NAME)
    if found is None or not found.submodule_search_locations:
        raise ImagePairError("easy_vqa: the package is not installed. Fix: pip install easy-vqa.")
    return (Path(found.submodule_search_locations[0]) / "data").resolve()


def _questions(root: Path) -> list[Any]:
    try:
        questions = json.loads((root / "questions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImagePairError(f"{root}: its questions cannot be read ({error}). Fix: install easy-vqa again.") from None
    return questions
