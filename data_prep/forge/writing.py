"""Writes records as JSON lines, compressed by the file's ending; the name appears only when all is written."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from data_prep.forge.library import ForgeError


def write_runs(out: Path, records: Iterable[dict[str, Any]]) -> list[bool]:
    """Write the records; whether each is resolved is returned. Whatever goes wrong, no part of the file stays."""
    if not out.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst")):
        raise ForgeError(f"--out {out}: write to a name that ends in .jsonl, .jsonl.gz, .jsonl.xz or .jsonl.zst")
    resolved = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise ForgeError(
            f"--out {out}: the folder cannot be written to ({error.strerror}); name another one"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as raw, _compressed(raw, out.suffix) as file:
            for item in records:
                resolved.append(item["resolved"])
                file.write(json.dumps(item, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return resolved


@contextlib.contextmanager
def _compressed(raw: IO[bytes], suffix: str) -> Iterator[IO[bytes]]:
    """The same bytes in give the same bytes out: no time of writing in the header."""
    file: Any
    if suffix == ".gz":
        file = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    elif suffix == ".xz":
        file = lzma.LZMAFile(raw, "wb")
    elif suffix == ".zst":
        file = _zstandard().ZstdCompressor(level=10).stream_writer(raw, closefd=False)
    else:
        file = io.BufferedWriter(raw)  # type: ignore[arg-type]
    yield file
    if file is not raw:
        file.close() if suffix != "" and suffix != ".jsonl" else file.flush()


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise ForgeError("a .zst file needs the zstandard package: pip install 'contextrl-verl[data]'") from None
    return zstandard
