"""What the worker and the keeper both know: messages of a header and some bytes, and how a folder is listed."""

from __future__ import annotations

import marshal
import os
import stat
import struct

# What marshal knows, by name. Neither json nor typing are worth their time to a process that lives for one box.
Header = dict
Listing = dict[str, list]
# Of a path below /testbed; the system's own limit is 4096.
_LONGEST = 4000


def send(channel: int, header: Header, data: bytes = b"") -> None:
    """Write one message."""
    head = marshal.dumps(header)
    rest = memoryview(struct.pack(">IQ", len(head), len(data)) + head + data)
    while rest:
        rest = rest[os.write(channel, rest) :]


def receive(channel: int) -> tuple[Header, bytes]:
    """Read one message; EOFError where the other side has gone."""
    head, data = struct.unpack(">IQ", _exactly(channel, 12))
    return marshal.loads(_exactly(channel, head)), _exactly(channel, data)


def _exactly(channel: int, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        if not (part := os.read(channel, min(size - len(got), 1 << 20))):
            raise EOFError
        got += part
    return bytes(got)


def listing_of(path: str | os.PathLike[str]) -> Listing:
    """``listing`` of a folder that is not open yet."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return listing(folder)
    finally:
        os.close(folder)


def listing(folder: int) -> Listing:
    """What lies under an open folder but for .git, by path: mode, size, two times of change and the link's target.

    No link is followed. What is nested too deep to have a path, and what may not be read, is left out.
    """
    found: Listing = {}
    todo = ["."]
    while todo:
        path = todo.pop()
        try:
            here = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        except OSError:
            continue
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name == ".git":
                    continue
                name = entry.name if path == "." else f"{path}/{entry.name}"
                if len(os.fsencode(name)) > _LONGEST:
                    continue
                is_ = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(is_.st_mode):
                    todo.append(name)
                    continue
                link = os.readlink(entry.name, dir_fd=here) if stat.S_ISLNK(is_.st_mode) else ""
                found[name] = [is_.st_mode, is_.st_size, is_.st_mtime_ns, is_.st_ctime_ns, link]
        os.close(here)
    return found
