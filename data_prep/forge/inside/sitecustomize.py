"""Loaded by every Python process of the scratch folder: refuses to write outside it, to connect, or to start others.

This protects a machine from a library's functions being called with arbitrary values. It is no wall against code that
means harm: forge only libraries that you would import.
"""

import os
import sys

# Set by serve.py around its own forks.
MAY_FORK = False
MAY_KILL = False

ROOT = os.path.realpath(os.environ["FORGE_ROOT"])

# Event name -> positions of its arguments that name files.
_CHANGES = {
    "os.chflags": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.link": (0, 1),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.removexattr": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.setxattr": (0,),
    "os.symlink": (0, 1),
    "os.truncate": (0,),
    "os.utime": (0,),
    "shutil.rmtree": (0,),
    "sqlite3.connect": (0,),
}
_FORBIDDEN = (
    "ctypes.",
    "ftplib.",
    "http.client.",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.kill",
    "os.killpg",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "pty.spawn",
    "signal.pthread_kill",
    "smtplib.",
    "socket.",
    "subprocess.Popen",
    "syslog.",
    "urllib.Request",
    "webbrowser.open",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Refused(PermissionError):
    """A call that the scratch folder does not allow."""


def _outside(path: object) -> bool:
    if isinstance(path, int):  # a descriptor that is open already
        return False
    name = os.fsdecode(path)  # type: ignore[arg-type]
    full = os.path.realpath(name)
    return not (full == ROOT or full.startswith(ROOT + os.sep) or full == os.devnull)


def _hook(event: str, arguments: tuple) -> None:
    if event == "open":
        path, mode, flags = arguments
        writes = bool(flags & _WRITING) if isinstance(flags, int) else bool(set(mode or "r") & set("wax+"))
        if writes and path is not None and _outside(path):
            raise Refused(f"writing to {path!r} is not allowed here")
    elif event in _CHANGES:
        for position in _CHANGES[event]:
            if position < len(arguments) and _outside(arguments[position]):
                raise Refused(f"{event} on {arguments[position]!r} is not allowed here")
    elif (event == "os.fork" and MAY_FORK) or (event == "os.kill" and MAY_KILL) or event == "socket.gethostname":
        return
    elif event.startswith(_FORBIDDEN):
        raise Refused(f"{event} is not allowed here")


sys.addaudithook(_hook)
