"""Name spaces, mounts, and paths that cannot lead out of the box, as Linux 5.14 has them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import time

# Hidden by the keeper's own mounts, in its own mount name space only. It exists everywhere, and bubblewrap wants it.
PLACE = "/tmp"
BOX, ROOT = f"{PLACE}/box", f"{PLACE}/box/root"
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 2, 4, 32, 4096, 16384, 1 << 18
# The module signal takes longer to import than a command runs.
SIGKILL, _SIGPIPE, _SIGXFSZ = 9, 13, 25
# System calls with the same number on every machine.
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_EMPTY_PATH, _RECURSIVE, _CLONE_TREE, _IDMAP = 0x1000, 0x8000, 1, 0x100000
_libc = ctypes.CDLL(None, use_errno=True)


def can_drop() -> bool:
    """Is this process root of a user name space with other users, so that a box can have a user of its own?"""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return os.geteuid() == 0 and sum(int(line.split()[2]) for line in file) > 1 << 16


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _syscall(number: int, *arguments: int | bytes) -> int:
    return checked(_libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))


def mount(source: str, target: str, kind: str = "none", flags: int = 0, options: str = "") -> None:
    texts = (text.encode() for text in (source, target, kind))
    checked(_libc.mount(*texts, ctypes.c_ulong(flags), options.encode()))


def unshare(flags: int) -> None:
    checked(_libc.unshare(flags))


def map_ids(process: str | int, inside: int, outside: int, group: int, outside_group: int) -> None:
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {outside} 1"),
        ("gid_map", f"{group} {outside_group} 1"),
    ):
        with open(f"/proc/{process}/{name}", "w", encoding="ascii") as file:
            file.write(text)


def attach(source: int, target: str, names: int = 0) -> None:
    """Show a file or folder read-only at ``target``, with its owner as the user name space ``names`` maps it."""
    recursive = 0 if names else _RECURSIVE
    tree = _syscall(_OPEN_TREE, source, b"", _EMPTY_PATH | _CLONE_TREE | os.O_CLOEXEC | recursive)
    flags = 1 | NOSUID | NODEV | (_IDMAP if names else 0)
    _syscall(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH | recursive, struct.pack("QQQQ", flags, 0, 0, names), 32)
    _syscall(_MOVE_MOUNT, tree, b"", -100, target.encode(), 4)
    os.close(tree)


def attach_as(source: int, target: str, user: int) -> bool:
    """Show what belongs to the source's owner as ``user``'s, if the file system can do that, else as it is."""
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            unshare(NEWUSER)
            os.write(go, b"y")
            time.sleep(60)
        finally:
            os._exit(1)
    try:
        os.close(go)
        if not os.read(ready, 1):
            raise OSError("no user name space")
        owner = os.fstat(source)
        map_ids(child, owner.st_uid, user, owner.st_gid, user)
        names = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
        attach(source, target, names)
        os.close(names)
        return True
    except OSError:
        attach(source, target)
        return False
    finally:
        os.close(ready)
        os.kill(child, SIGKILL)
        os.waitpid(child, 0)


def inside(path: str, flags: int, mode: int = 0, root: str = ROOT) -> int:
    """Open a path of the box; its links, absolute or not, never lead out."""
    top = os.open(root, os.O_PATH)
    try:
        how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, 0x12)  # in this root, through no magic link
        return _syscall(_OPENAT2, top, os.fsencode(path), how, len(how))
    finally:
        os.close(top)


def folder(path: str, root: str = ROOT) -> int:
    """A folder of the box, made with those above it where it does not exist."""
    try:
        return inside(path, os.O_PATH | os.O_DIRECTORY, root=root)
    except FileNotFoundError:
        above = folder(os.path.dirname(path), root)
        try:
            os.mkdir(os.path.basename(path), 0o755, dir_fd=above)
        finally:
            os.close(above)
        return inside(path, os.O_PATH | os.O_DIRECTORY, root=root)


def read(path: str, root: str = ROOT) -> bytes:
    """A regular file of the box."""
    file = inside(path, os.O_RDONLY | os.O_NONBLOCK, root=root)
    with open(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return opened.read()


def write(path: str, data: bytes, root: str = ROOT) -> None:
    """Make or replace a file of the box, and the folders above it."""
    os.close(folder(os.path.dirname(path), root))
    file = inside(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644, root)
    with open(file, "wb") as opened:
        opened.write(data)


def prctl(option: int, value: int) -> None:
    """As in <linux/prctl.h>."""
    checked(_libc.prctl(option, value, 0, 0, 0))


def default_signals() -> None:
    """What Python ignores has its usual effect again."""
    for number in (_SIGPIPE, _SIGXFSZ):
        _libc.signal(number, None)


def loop_up() -> None:
    """Bring up this network name space's loop device."""
    probe = checked(_libc.socket(2, 2, 0))
    fcntl.ioctl(probe, 0x8914, struct.pack("16sH22x", b"lo", 1))
    os.close(probe)
