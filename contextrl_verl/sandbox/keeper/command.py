"""One command: a bubblewrap, watched until it has ended, and with it all that it started."""

from __future__ import annotations

import os
import resource
import select
import time

from . import kernel
from .kernel import BOX, PLACE
from .wire import Header

# How often memory is looked at, in seconds.
_LOOK = 0.05


def run(box: Header, channel: int, asked: Header, data: bytes) -> tuple[Header, bytes]:
    """One command in a bubblewrap; how it ended, and what is kept of its output."""
    reader, writer = os.pipe()
    told, tell = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(box, asked["command"], data, writer, tell)
    os.close(writer)
    os.close(tell)
    output = Output(box["output"])
    ended = _watch(box, channel, child, reader, output, began + asked["seconds"])
    status = _end_all(child)
    while not ended and (part := os.read(reader, 1 << 16)):
        output.add(part)
    answer = {
        "returncode": 137 if ended else os.waitstatus_to_exitcode(status),
        "ended": ended,
        # Bubblewrap tells an exit code only of a command that it started.
        "started": bool(ended) or b"exit-code" in os.read(told, 4096),
        "seconds": time.monotonic() - began,
    }
    os.close(reader)
    os.close(told)
    return answer, output.kept()


def _become(box: Header, command: str, data: bytes, output: int, tell: int) -> None:
    """Turn this process into the bubblewrap of a command."""
    try:
        os.setsid()
        kernel.default_signals()
        given = os.memfd_create("given")
        with open(given, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(given, 0, os.SEEK_SET)
        program = os.open(f"{BOX}/filter", os.O_RDONLY)
        for descriptor in (program, tell):
            os.set_inheritable(descriptor, True)
        for descriptor, number in ((given, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, number)
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")  # where the whole machine runs out of memory, this goes before the trainer
        for name, value in box["rlimits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        options = [*box["options"], "--seccomp", str(program), "--json-status-fd", str(tell)]
        argv = ["bwrap", *options, "--", "bash", "-c", command]
        os.execve(f"{PLACE}/{box['program']}", argv, box["environment"])
    except OSError as error:
        os.write(output, f"bwrap cannot be run: {error.strerror}".encode())
    finally:
        os._exit(127)


def _watch(box: Header, channel: int, child: int, reader: int, output: Output, until: float) -> str:
    """Read a command's output until it has ended; returns the limit that it met, or nothing."""
    process, looked, readers = os.pidfd_open(child), 0.0, [reader]
    try:
        while True:
            now = time.monotonic()
            if now >= until:
                return "timeout"
            if now - looked >= _LOOK:
                looked = now
                if _memory(box["memory"]) > box["memory"]:
                    return "memory"
            ready, _, _ = select.select([process, channel, *readers], [], [], min(_LOOK, until - now))
            if channel in ready:
                raise EOFError  # the worker has gone
            if process in ready:
                return ""
            if reader in ready:
                if not (part := os.read(reader, 1 << 16)):
                    readers = []
                output.add(part)
                if output.total > box["flood"]:
                    return "output"
    finally:
        os.close(process)


class Output:
    """The beginning and the end of what was written, and how much that was."""

    def __init__(self, keep: int) -> None:
        self.half, self.head, self.tail, self.total = keep // 2, bytearray(), bytearray(), 0

    def add(self, part: bytes) -> None:
        self.total += len(part)
        room = self.half - len(self.head)
        self.head += part[:room]
        self.tail += part[room:]
        del self.tail[: -self.half]

    def kept(self) -> bytes:
        missing = self.total - len(self.head) - len(self.tail)
        note = f"\n[... {missing} bytes left out ...]\n".encode() if missing else b""
        return bytes(self.head + note + self.tail)


def _end_all(child: int) -> int:
    """End every other process of this pid name space and those below; returns the child's status."""
    status = 0
    try:
        os.kill(-1, kernel.SIGKILL)
    except ProcessLookupError:
        pass
    while True:
        try:
            ended, told = os.waitpid(-1, 0)
        except ChildProcessError:
            return status
        if ended == child:
            status = told


def _memory(enough: int) -> int:
    """What all processes but this one hold, in bytes: shared pages counted for each of them unless that is too much."""
    others = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    if (held := sum(_resident(name) for name in others)) <= enough:
        return held
    return sum(_share(name) for name in others)


def _resident(process: str) -> int:
    try:
        with open(f"/proc/{process}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0  # ended meanwhile


def _share(process: str) -> int:
    try:
        with open(f"/proc/{process}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
