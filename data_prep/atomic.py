"""Small files, written whole or not at all."""

from __future__ import annotations

import os

from contextrl_verl.whole_file import whole_file


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a small file through a scratch file in the same folder; a reader never sees half of it."""
    with whole_file(path) as scratch:
        scratch.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
