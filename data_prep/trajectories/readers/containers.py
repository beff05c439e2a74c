"""Open plain, gzip, xz and Zstandard files as one stream of bytes, and tell which of them a file is."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import IO, Any, cast

from data_prep.trajectories.readers.types import Compression
from data_prep.trajectories.run import TrajectoryError

# Everything that reading a damaged or vanished file raises here; Zstandard's own error is turned into OSError below.
DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error)

_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_ENDINGS: dict[str, Compression] = {".gz": "gz", ".xz": "xz", ".zst": "zst"}
_CHUNK = 1 << 18


def compression_of(path: Path) -> Compression:
    """By the first bytes; a file whose name promises compression and whose bytes do not is still taken at its name, so
    that its damage is reported as such."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, compression in _MAGIC.items():
        if start.startswith(magic):
            return compression
    return _ENDINGS.get(path.suffix.lower(), "none") if start else "none"


def open_bytes(path: Path, compression: Compression) -> IO[bytes]:
    """The file's content; reading it raises one of :data:`DAMAGE` where it is cut or damaged."""
    if compression == "gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if compression == "xz":
        return cast("IO[bytes]", lzma.open(path, "rb"))
    if compression == "zst":
        return io.BufferedReader(_ZstandardFile(path), _CHUNK)
    return path.open("rb", buffering=_CHUNK)


class _ZstandardFile(io.RawIOBase):
    """Frames one after the other. Unlike the library's own reader it notices a file that ends within a frame."""

    def __init__(self, path: Path) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise TrajectoryError(
                f"{path} is compressed with Zstandard and the package zstandard is not installed; "
                "pip install zstandard, or unpack the file with `unzstd`"
            ) from error
        self._library: Any = zstandard
        self._file = path.open("rb")
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._file.read(_CHUNK // 8)
                if not self._input:
                    if self._frame is not None:
                        raise EOFError("the file ends within a Zstandard frame")
                    return 0
            if self._frame is None:
                self._frame = self._library.ZstdDecompressor().decompressobj()
            try:
                self._output = memoryview(self._frame.decompress(self._input))
            except self._library.ZstdError as error:
                raise OSError(f"damaged Zstandard frame ({error})") from error
            self._input = b""
            if self._frame.eof:
                self._input, self._frame = self._frame.unused_data, None
        size = min(len(target), len(self._output))
        target[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
