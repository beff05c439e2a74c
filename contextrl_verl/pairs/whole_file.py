"""Files that are either whole or not there, also when their writer is killed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from uuid import uuid4

import psutil


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A scratch path in the folder of ``path`` that takes its name when the block ends without an error.

    What writers of the same file left behind when they were killed on this machine is removed first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    for left in path.parent.glob(f".{escape(path.name)}.{escape(host)}.*.part"):
        pid = left.name.split(".")[-3]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            left.unlink(missing_ok=True)
    scratch = path.with_name(f".{path.name}.{host}.{os.getpid()}.{uuid4().hex[:8]}.part")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a small file through a scratch file in the same folder; a reader never sees half of it."""
    with whole_file(path) as scratch:
        scratch.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
