"""Loaded by every Python process of the scratch folder: refuses to write outside it, to connect, or to start others.

This protects a machine from a library's functions being called with arbitrary values. It is no wall against code that
means harm: forge only libraries that you would import.
"""

import os
import sys

# Set by observe.py around its own forks.
MAY_FORK = False

ROOT = os.path.realpath(os.environ["FORGE_ROOT"])
# Their first arguments name what changes, of those with two files both.
_CHANGES = {
    *("os.chflags", "os.chmod", "os.chown", "os.mkdir", "os.remove", "os.removexattr", "os.rmdir", "os.setxattr"),
    *("os.truncate", "os.utime", "shutil.rmtree", "sqlite3.connect", "os.link", "os.rename", "os.symlink"),
}
_TWO_FILES = {"os.link", "os.rename", "os.symlink"}
_FORBIDDEN = (
    *("os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.spawn"),
    *("signal.pthread_kill", "subprocess.Popen", "webbrowser.open", "ctypes.", "syslog."),
    *("ftplib.", "http.client.", "smtplib.", "socket.", "urllib.Request"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Refused(PermissionError):
    """A call that the scratch folder does not allow."""


def _outside(path: object) -> bool:
    if isinstance(path, int):  # a descriptor that is open already
        return False
    full = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
    return not (full == ROOT or full.startswith(ROOT + os.sep) or full == os.devnull)


def _hook(event: str, arguments: tuple) -> None:
    if event == "open":
        path, mode, flags = arguments
        writes = bool(flags & _WRITING) if isinstance(flags, int) else bool(set(mode or "r") & set("wax+"))
        if writes and path is not None and _outside(path):
            raise Refused(f"writing to {path!r} is not allowed here")
    elif event in _CHANGES:
        for path in arguments[: 2 if event in _TWO_FILES else 1]:
            if _outside(path):
                raise Refused(f"{event} on {path!r} is not allowed here")
    elif event.startswith(_FORBIDDEN) and event != "socket.gethostname" and not (event == "os.fork" and MAY_FORK):
        raise Refused(f"{event} is not allowed here")


sys.addaudithook(_hook)
