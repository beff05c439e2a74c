"""The package ``easy-vqa``: questions about pictures of one flat shape, 64 pixels a side. It is read, not run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from contextrl_verl.errors import ConfigError
from data_prep.images.sources.base import Found, Row, SourceOptions, Span, row_ranges

NAME = "easy_vqa"
FORM = "easy_vqa (the package easy-vqa; splits train and test)"


def claims(spec: str) -> bool:
    return spec == NAME


def find(spec: str, options: SourceOptions) -> Found:
    """Raises ConfigError when the package is missing or the split is unknown."""
    split = options.split or "train"
    if split not in ("train", "test"):
        raise ConfigError(f"{spec}: split is {split!r}. Fix: one of train, test.")
    package = importlib.util.find_spec(NAME)
    if package is None:
        raise ConfigError("easy_vqa: the package is not installed. Fix: pip install easy-vqa.")
    root = str(Path(package.submodule_search_locations[0], "data", split))
    count = len(_questions(root))
    at = {"root": root, "split": split, "version": importlib.metadata.version("easy-vqa")}
    return Found(
        name=NAME,
        columns=("image", "question", "answer"),
        spans=[{**at, **part} for part in row_ranges(count, options)],
        keys=lambda: (f"{split}:{index}" for index in range(count)),
        root=root,
        domain="shapes",
    )


def rows(span: Span) -> Iterator[Row]:
    questions = _questions(span["root"])
    for index in range(span["start"], span["stop"]):
        question, answer, image = questions[index]
        columns = partial(dict, image=f"images/{image}.png", question=question, answer=answer)
        yield Row(f"{span['split']}:{index}", {"split": span["split"], "row": index}, columns)


def _questions(root: str) -> list[tuple[str, str, int]]:
    return json.loads(Path(root, "questions.json").read_text(encoding="utf-8"))
