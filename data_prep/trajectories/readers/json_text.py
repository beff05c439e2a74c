"""Bytes to JSON values: the fast and strict way first, then what Python's own writer writes beyond JSON."""

from __future__ import annotations

import json
from typing import Any

from data_prep.trajectories.readers.types import UnusableError

try:
    import orjson
except ImportError:  # an optional speed-up
    orjson = None  # type: ignore[assignment]

_BOM = b"\xef\xbb\xbf"


def loads(data: bytes) -> Any:
    """The value; raises :class:`UnusableError` (undecodable bytes, truncated, not JSON).

    Beyond JSON it takes what ``json.dumps`` writes by default: NaN and infinities, and half surrogate pairs, which
    become U+FFFD.
    """
    data = data.removeprefix(_BOM)
    if orjson is not None:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # decided below, where the reason is told apart
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end >= len(data.rstrip()) and error.reason == "unexpected end of data":
            raise UnusableError("truncated", "ends within a character; copy the file again") from error
        raise UnusableError("undecodable bytes", f"{error.reason} at byte {error.start:,}; write UTF-8") from error
    try:
        return without_surrogates(json.loads(text, parse_int=_integer))
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            raise UnusableError("truncated", f"ends within the record ({error}); copy the file again") from error
        raise UnusableError("not JSON", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UnusableError("not JSON", f"{type(error).__name__}: {str(error)[:200]}") from error


def _integer(digits: str) -> int | float:
    """Python refuses to read longer numbers exactly; nothing that is used here is one."""
    return int(digits) if len(digits) < 4000 else float(digits)


def without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return value
