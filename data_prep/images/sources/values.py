"""What a row's columns hold: texts; a picture as bytes, path, base64, data URI, a struct of these or a list of one."""

from __future__ import annotations

import base64
import binascii
import decimal
import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from data_prep.images.decode import ImageRejected
from data_prep.images.sources.base import RowRejected

_MARK = re.compile(r"^\s*<image>\s*|\s*<image>\s*$")
_MEDIA = re.compile(r"<(?:image|video|audio)>")
# Base64 of the beginnings of known formats; nothing that long without a dot is the path of a picture.
_BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|UklGR|R0lGOD|Qk|SUkq|TU0A)[A-Za-z0-9+/\s]{60,}={0,2}")
_DATA_URI = re.compile(r"data:(?:image/[\w.+-]+)?(?:;[\w=.+-]+)*?(;base64)?,", re.IGNORECASE)
_LINK = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


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


class Picture(NamedTuple):
    """An encoded picture, or the file that holds it.

    Attributes:
        key: equal for rows that show the same one.
        data: encoded; None: in ``path``.
        path: as the row gives it; ``""`` if it gives none.
        file: to read.
    """

    key: str
    data: bytes | None
    path: str = ""
    file: Path | None = None

    def read(self, max_bytes: int) -> bytes:
        """The encoded picture; raises ImageRejected."""
        if self.data is not None:
            return self.data
        try:
            size = self.file.stat().st_size
            if size > max_bytes:
                raise ImageRejected("too many bytes", f"{size:,}, the limit is {max_bytes:,}")
            return self.file.read_bytes()
        except OSError as error:
            raise ImageRejected("unreadable file", f"{self.path}: {error.strerror}") from None


def picture_of(value: Any, root: Path | None) -> Picture:
    """The picture of a row.

    Args:
        value: of its column.
        root: folder, as its resolved path, that a path starts from and stays in; None: paths are refused.

    Raises:
        ImageRejected: there is none, or several, or it is a link, or a path that leaves the folder or leads nowhere.
    """
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise ImageRejected("several pictures", f"{len(value)} in one row")
        value = value[0] if value else None
    path = ""
    if isinstance(value, Mapping):
        path = value.get("path") if isinstance(value.get("path"), str) else ""
        data = value.get("bytes")
        if data is None:
            value = path or None
        elif isinstance(data, str):
            return _of_bytes(_from_base64(data), path)
        else:
            value = data
    if value is None or (not isinstance(value, bytes | bytearray) and value == ""):
        raise ImageRejected("no picture")
    if isinstance(value, bytes | bytearray | memoryview):
        return _of_bytes(bytes(value), path)
    if not isinstance(value, str):
        raise ImageRejected("no picture", f"a {type(value).__name__} in its column")
    if value[:5].lower() == "data:":
        return _of_bytes(_from_uri(value), "")
    if _BASE64.fullmatch(value.rstrip()):
        return _of_bytes(_from_base64(value), "")
    return _of_path(value, root)


def _of_bytes(data: bytes, path: str) -> Picture:
    return Picture(hashlib.blake2b(data, digest_size=16).hexdigest(), data, path)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageRejected("damaged base64", str(error)) from None


def _from_uri(text: str) -> bytes:
    head = _DATA_URI.match(text)
    if head is None:
        raise ImageRejected("no picture", "a data URI of something else")
    return _from_base64(text[head.end() :]) if head[1] else unquote_to_bytes(text[head.end() :])


def _of_path(path: str, root: Path | None) -> Picture:
    if _LINK.match(path):
        raise ImageRejected("picture is a link", "nothing is downloaded; store the picture or a path")
    if root is None:
        raise ImageRejected("picture is a path", "this source has no folder for pictures; store the bytes in the rows")
    try:
        path.encode()  # half characters stand in no file
        file = (root / path).resolve()
        inside = file.is_relative_to(root) and not Path(path).is_absolute()
        there = inside and file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a byte 0, a name too long, a circle of links
        raise ImageRejected("no such file", f"{path[:100]!r}: {error}") from None
    if not inside:
        raise ImageRejected("path leaves the folder", f"{path[:150]}; pictures stay inside it (option root)")
    if not there:
        raise ImageRejected("no such file", path[:200])
    return Picture(f"file:{file.relative_to(root).as_posix()}", None, path, file)
