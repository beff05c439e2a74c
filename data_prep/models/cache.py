"""Answers on disk under a digest of everything that was asked: asking again costs nothing.

One JSON file per answer, written whole, so that any number of processes can share a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.whole_file import write_whole


def digest(parts: Any) -> str:
    """Hex digest of plain JSON values; the same on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


class ReplyCache:
    """A folder of answers; ``damaged`` counts files that could not be used, which are asked again and replaced."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder, self.damaged = Path(folder), 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The cache folder {self.folder} cannot be made ({error.strerror}). Fix: give another, cache=..."
            ) from None

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def read(self, key: str) -> dict[str, Any] | None:
        """The answer, or None if there is none to use."""
        try:
            record = json.loads(self.path(key).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            record = None
        if isinstance(record, dict) and record.get("key") == key:
            return record
        self.damaged += 1
        return None

    def write(self, key: str, record: dict[str, Any]) -> None:
        """Raises ConfigError if the answer, already paid for, cannot be stored."""
        try:
            write_whole(self.path(key), json.dumps({"key": key, **record}, indent=1) + "\n")
        except OSError as error:
            raise ConfigError(
                f"An answer cannot be stored in the cache {self.folder} ({error.strerror}). Fix: make room, or name "
                "another folder, cache=..., and run it again; going on would pay for answers twice."
            ) from None
