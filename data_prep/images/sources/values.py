"""What a row's columns hold: texts; a picture as bytes, path, base64, data URI, a struct of these or a list of one."""

from __future__ import annotations

import base64
import decimal
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from contextrl_verl.pairs.files import inside
from data_prep.images.sources.base import RowRejected
from data_prep.images.store import ImageRejected, one_line

_MARK = re.compile(r"^\s*<image>\s*|\s*<image>\s*$")
_MEDIA = re.compile(r"<(?:image|video|audio)>")
# Base64 of the beginnings of known formats; nothing that long without a dot is the path of a picture.
_BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|UklGR|R0lGOD|Qk|SUkq|TU0A)[A-Za-z0-9+/\s]{60,}={0,2}")
_LINK = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, which may be a path of dots into structs; None if it is not there."""
    if column in row:
        return row[column]
    value: Any = row
    for name in column.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def question_of(value: Any) -> str:
    """The question as text, without a mark for its one picture; raises RowRejected."""
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        asked = [message.get("content") for message in value if message.get("role") == "user"]
        if len(asked) != 1 or len(value) > 2:
            raise RowRejected("question is a conversation", f"{len(value)} messages")
        value = asked[0]
    text = _text(_MARK.sub("", value) if isinstance(value, str) else value, "question")
    if mark := _MEDIA.search(text):
        raise RowRejected("question holds a mark for media", mark[0])
    return text


def answer_of(value: Any) -> str:
    """The answer as text; a number becomes one, everything else that is not text is refused with RowRejected."""
    if isinstance(value, int | decimal.Decimal) and not isinstance(value, bool):
        value = str(value)
    elif isinstance(value, float):
        # Tables with gaps hold NaN, and keep whole numbers as floats.
        whole = value.is_integer() and abs(value) < 1e15
        value = (str(int(value)) if whole else repr(value)) if math.isfinite(value) else ""
    if isinstance(value, list | tuple):
        raise RowRejected("answer is a list", f"{len(value)} values; choose one, or name another column")
    return _text(value, "answer")


def label_of(value: Any) -> str:
    """A domain or an id as text; ``""`` if there is none."""
    there = value is not None and not isinstance(value, list | Mapping) and str(value).strip()
    return _text(str(value), "label") if there else ""


def _text(value: Any, what: str) -> str:
    if value is not None and not isinstance(value, str):
        raise RowRejected(f"{what} is no text", type(value).__name__)
    if not value or not value.strip():
        raise RowRejected(f"no {what}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half characters, which no file can hold
        raise RowRejected("undecodable text", error.reason) from None
    if "\0" in value:
        raise RowRejected("undecodable text", "a NUL character, which pairs cannot hold")
    return value.strip()


def picture_of(value: Any, root: Path | None) -> tuple[bytes | Path, str]:
    """The encoded picture that a column holds, or the file that does; and the path that the row gives, if any.

    Paths start from ``root``, a resolved folder, and stay in it; without one they are refused. Raises ImageRejected:
    there is none, or several, or it is a link, or a path that leaves the folder or leads nowhere.
    """
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise ImageRejected("several pictures", f"{len(value)} in one row")
        value = value[0] if value else None
    path = ""
    if isinstance(value, Mapping):
        data = value.get("bytes")
        path = value["path"] if isinstance(value.get("path"), str) else ""
        value = path if data is None else _from_base64(data) if isinstance(data, str) else data
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), path
    if not isinstance(value, str) or not value:
        raise ImageRejected("no picture", f"a {type(value).__name__} in its column")
    if value[:5].lower() == "data:":
        return _from_uri(value), ""
    if _BASE64.fullmatch(value.rstrip()):
        return _from_base64(value), ""
    return _from_path(value, root)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise ImageRejected("damaged base64", str(error)) from None


def _from_uri(text: str) -> bytes:
    head, comma, data = text.partition(",")
    kind = head[5:].lower()
    if not comma or not (kind == "" or kind.startswith((";", "image/"))):
        raise ImageRejected("no picture", "a data URI of something else")
    return _from_base64(data) if kind.endswith(";base64") else unquote_to_bytes(data)


def _from_path(path: str, root: Path | None) -> tuple[Path, str]:
    if _LINK.match(path):
        raise ImageRejected("picture is a link", "nothing is downloaded; store the picture or a path")
    if root is None:
        raise ImageRejected("picture is a path", "this source has no folder for pictures; store the bytes in the rows")
    try:
        path.encode()  # half characters stand in no file
        file = inside(root, path)
        there = file is not None and file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a byte 0, a name too long, a circle of links
        raise ImageRejected("no such file", f"{path[:100]!r}: {one_line(error)}") from None
    if file is None:
        raise ImageRejected("path leaves the folder", f"{path[:150]}; pictures stay inside it (source.root)")
    if not there:
        raise ImageRejected("no such file", path[:200])
    return file, file.relative_to(root).as_posix()
