"""Which column is the picture, the question, the answer; and their values as text."""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Mapping
from typing import Any

from data_prep.images.errors import ImagePairError
from data_prep.images.sources.types import Found, RowRejected

# The first that is there is taken.
ALIASES = {
    "image": ("image", "images", "picture", "img", "image_path", "image_file", "file_name", "filename", "image_bytes"),
    "question": ("question", "query", "problem", "prompt"),
    "answer": ("answer", "ground_truth", "target", "multiple_choice_answer", "reward_model.ground_truth"),
    "domain": ("domain",),
    "id": ("id", "question_id"),
}
_NEEDED = ("image", "question", "answer")
_MARK = re.compile(r"^\s*<image>\s*|\s*<image>\s*$")
_MEDIA = re.compile(r"<(?:image|video|audio)>")


def choose_columns(found: Found, chosen: Mapping[str, str], spec: str) -> dict[str, str]:
    """``{role: column}``; raises ImagePairError that names the columns there are."""
    there = set(found.columns)
    columns = {}
    for role, aliases in ALIASES.items():
        if role in chosen:
            if chosen[role].split(".")[0] not in there:
                raise ImagePairError(
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
        elif role in _NEEDED:
            raise ImagePairError(
                f"{spec}: no column is known to be the {role}; columns are {sorted(there)}. "
                f"Fix: name it with {role}=COLUMN (looked for: {', '.join(aliases)})."
            )
    return columns


def _pictures(found: Found, aliases: tuple[str, ...], spec: str) -> tuple[str, ...]:
    named = [alias for alias in aliases if alias in found.pictures]
    if not named and len(found.pictures) > 1:
        raise ImagePairError(
            f"{spec}: several columns hold pictures: {sorted(found.pictures)}. Fix: name one with image=COLUMN."
        )
    return tuple(named or found.pictures)


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, which may be a path of dots into structs; None if it is not there."""
    if column in row:
        return row[column]
    value: Any = row
    for name in column.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def question_of(value: Any) -> str:
    """The question as text, without a mark for its one picture; raises RowRejected."""
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        asked = [message.get("content") for message in value if message.get("role") == "user"]
        if len(asked) != 1 or len(value) > 2:
            raise RowRejected("question is a conversation", f"{len(value)} messages")
        value = asked[0]
    if value is not None and not isinstance(value, str):
        raise RowRejected("question is no text", type(value).__name__)
    text = _text(_MARK.sub("", value or ""))
    if not text:
        raise RowRejected("no question")
    if mark := _MEDIA.search(text):
        raise RowRejected("question holds a mark for media", mark[0])
    return text


def answer_of(value: Any) -> str:
    """The answer as text; a number becomes one, everything else that is not text is refused with RowRejected."""
    if isinstance(value, int | decimal.Decimal) and not isinstance(value, bool):
        value = str(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RowRejected("no answer", str(value))
        # Tables with gaps keep whole numbers as floats.
        value = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, list | tuple):
        raise RowRejected("answer is a list", f"{len(value)} values; choose one, or name another column")
    if value is not None and not isinstance(value, str):
        raise RowRejected("answer is no text", type(value).__name__)
    text = _text(value or "")
    if not text:
        raise RowRejected("no answer")
    return text


def label_of(value: Any) -> str:
    """A domain or an id as text; ``""`` if there is none."""
    return "" if value is None or isinstance(value, list | Mapping) else _text(str(value))


def _text(value: str) -> str:
    """Without half characters, which no file can hold, and without space around it."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowRejected("undecodable text", error.reason) from None
    return value.strip()
