"""What a sandbox is, whichever program contains it: limits, a repository to start from, commands, and the diff."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

# Where the repository lies in every box, and where every command starts.
WORKPLACE = "/testbed"
# What every command finds in its environment, whichever program contains it; nothing of the worker's own.
HOME = "/home/agent"
ENVIRONMENT = {
    **{"HOME": HOME, "USER": "agent", "LOGNAME": "agent", "SHELL": "/bin/bash", "TMPDIR": "/tmp"},
    **{"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "dumb", "COLUMNS": "80", "LINES": "24"},
    **{"PAGER": "cat", "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    # A thread counts as a process, and numerical libraries start one for each of a large machine's cores.
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    **{"GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "agent", "GIT_AUTHOR_EMAIL": "agent@localhost"},
    **{"GIT_COMMITTER_NAME": "agent", "GIT_COMMITTER_EMAIL": "agent@localhost"},
    **{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
}
# Linux' own limit for one argument.
_LONGEST_COMMAND = 128 << 10


class InfrastructureError(Exception):
    """The sandbox failed, not what ran in it. ``reason`` is one word to count by, ``detail`` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class Limits:
    """Of one box. ``disk_bytes`` holds for all that its commands write, the others for one command at a time."""

    __pydantic_config__ = {"extra": "forbid"}
    seconds: float = 60.0  # of wall clock, unless a call asks for its own
    memory_bytes: int = 2 << 30  # resident, all processes together; one process may map twice as much
    processes: int = 128
    file_bytes: int = 256 << 20  # one file
    disk_bytes: int = 512 << 20  # held in memory; one file for every 8 KiB of it
    output_bytes: int = 256 << 10  # kept, half of it from the beginning and half from the end

    @property
    def files(self) -> int:
        """How many files and folders a box may make."""
        return self.disk_bytes >> 13

    @property
    def flood_bytes(self) -> int:
        """So much output ends a command."""
        return 256 * self.output_bytes

    @property
    def address_bytes(self) -> int:
        """How much one process may map; runtimes such as node's and Java's reserve gigabytes that they never touch."""
        return max(4 << 30, 2 * self.memory_bytes)


@dataclass(frozen=True)
class Base:
    """What a box starts from; nothing of it is ever written to.

    ``folder`` is the repository, shown as /testbed; None where the image holds it there. ``image`` is the rest of the
    file system: None for this machine's programs and Python, else an unpacked image's folder (bubblewrap) or an image's
    name (docker, apptainer). ``hidden`` are absolute paths inside the box, outside /testbed, that are shown empty where
    they exist.
    """

    folder: Path | None
    image: str | None = None
    hidden: tuple[str, ...] = ()


class Finished(NamedTuple):
    """How a command ended.

    ``returncode`` is 128 and the signal's number where a signal ended it, 126 where it could not be begun after what
    earlier ones did. ``output`` is standard output and error in their order; where it was too long, a line inside tells
    how many bytes are missing. ``ended`` is empty, or the limit that ended it: timeout, memory or output.
    """

    returncode: int
    output: str
    ended: str
    seconds: float


def refused(command: str) -> Finished | None:
    """What every box answers to a command that no shell can be given: one with a NUL byte, or too long."""
    if "\0" in command:
        return Finished(126, "bash: a command cannot hold a NUL byte\n", "", 0.0)
    if len(command.encode(errors="replace")) >= _LONGEST_COMMAND:
        return Finished(126, f"bash: a command cannot be longer than {_LONGEST_COMMAND - 1} bytes\n", "", 0.0)
    return None


class Box(Protocol):
    """One repository that commands may do as they like with. Its methods block; one thread at a time."""

    def run(self, command: str, *, stdin: str = "", seconds: float | None = None) -> Finished:
        """Run a command of bash in /testbed; all its processes are gone when this returns."""

    def read(self, path: str) -> bytes:
        """A regular file's content, its path in the box absolute or from /testbed; OSError where there is none."""

    def write(self, path: str, data: bytes) -> None:
        """Make or replace a file, and the folders above it."""

    def diff(self) -> str:
        """All that differs in /testbed from the start, in git's format; taken from outside, no program in it runs.

        Left out are what is called .git, and what git does not know (empty folders, sockets, devices). Files that are
        not UTF-8, or larger than a mebibyte, are named only, as git names binary files.
        """

    def close(self) -> None:
        """End every process and forget every file of the box; may be called again."""


class Sandbox(Protocol):
    """A way to make boxes; may be used by several threads at a time."""

    limits: Limits

    def start(self, base: Base) -> Box: ...


class Rung(NamedTuple):
    """One way to contain commands on this machine, and what to do where it is not ``usable``."""

    name: str
    usable: bool
    detail: str
    fix: str = ""
