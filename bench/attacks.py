"""What a box has to hold: commands that hurt a host, or the next command, and how to see that they did not.

tests/sandbox/test_containment.py runs them; ``python -m bench.sandbox attacks`` prints their times.
"""

from __future__ import annotations

import os
import socket
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from contextrl_verl.sandbox import Base, Box, Finished, Limits, Sandbox

SECRET = "a-key-of-the-worker"
LIMITS = Limits(memory_bytes=1 << 30, processes=64, disk_bytes=64 << 20, file_bytes=32 << 20, output_bytes=64 << 10)
# A library that every Python has, and whose source must not be seen where its repository is to be mended.
COPY = Path(sysconfig.get_paths()["stdlib"]) / "wsgiref"


class Host(NamedTuple):
    """What the commands try to reach: a file and a server of this machine."""

    file: Path
    port: int


class Attack(NamedTuple):
    """``command`` is given ``seconds``; ``{file}`` and ``{port}`` are the host's. It held if ``held`` finds so."""

    name: str
    command: str
    held: Callable[[Finished, Box], bool]
    seconds: float = 10.0


@contextmanager
def host(folder: Path) -> Iterator[Host]:
    """A file and a server, and a secret in this process' environment."""
    file = folder / "of-the-host.txt"
    file.write_text(SECRET)
    file.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as server:
        os.environ["CONTEXTRL_SECRET"] = SECRET
        try:
            yield Host(file, server.getsockname()[1])
        finally:
            del os.environ["CONTEXTRL_SECRET"]


def attack(sandbox: Sandbox, repository: Path, what: Attack, at: Host) -> tuple[Finished, bool, Finished]:
    """How the command ended in a box of its own, whether it was held, and how the next command fared."""
    box = sandbox.start(Base(repository, hidden=(str(COPY),)))
    try:
        command = what.command.replace("{file}", str(at.file)).replace("{port}", str(at.port))
        done = box.run(command, seconds=what.seconds)
        held = SECRET not in done.output and what.held(done, box)
        return done, held, box.run("echo alive /proc/[0-9]*", seconds=10)
    finally:
        box.close()


def _python(code: str) -> str:
    return f"python - <<'END'\n{code}\nEND"


def _ended(*how: str) -> Callable[[Finished, Box], bool]:
    return lambda done, box: done.ended in how


def _says(*words: str) -> Callable[[Finished, Box], bool]:
    return lambda done, box: not done.ended and all(word in done.output for word in words)


def _written_at_most(path: str, number: int) -> Callable[[Finished, Box], bool]:
    """Bytes under the paths."""
    return lambda done, box: int(box.run(f"du -cs -B1 {path} | tail -1 | cut -f1").output) <= number


_LEFT = "sleep 987654"
ATTACKS = [
    Attack("fork bomb of bash", ":(){ :|:& };:; sleep 30", _ended("", "timeout"), 2),
    Attack(
        "fork bomb of Python that ignores signals",
        _python(
            "import os, signal\nsignal.signal(15, signal.SIG_IGN)\n"
            "while True:\n  try: os.fork()\n  except OSError: pass"
        ),
        _ended("timeout", "memory"),
        2,
    ),
    Attack(
        "6 GiB in one process",
        _python("b = bytearray(6 << 30)\nfor i in range(0, len(b), 4096): b[i] = 1"),
        _says("MemoryError"),
    ),
    Attack(
        "12 processes of 300 MiB",
        "for i in $(seq 12); do python -c 'b = b\"1\" * (300 << 20); import time; time.sleep(20)' & done; wait",
        _ended("memory"),
        20,
    ),
    Attack(
        "disk: large files in the repository",
        "for i in $(seq 99); do head -c 30M /dev/zero > big$i; done",
        _written_at_most("/testbed/big*", LIMITS.disk_bytes + (1 << 20)),
    ),
    Attack(
        "disk: one large file",
        "head -c 60M /dev/zero > /tmp/big; echo ended with $?",
        _written_at_most("/tmp/big", LIMITS.file_bytes + (1 << 20)),
    ),
    Attack(
        "inodes",
        _python(
            "n = 0\ntry:\n  while n < 10**6: open(f'/tmp/{n}', 'w').close(); n += 1\nexcept OSError as e: print(n, e)"
        ),
        lambda done, box: int(done.output.split()[0]) <= LIMITS.files and "No space" in done.output,
        20,
    ),
    Attack(
        "/dev/shm, /, /dev",
        "for i in 1 2 3; do head -c 30M /dev/zero > /dev/shm/$i; done; echo > /x; echo > /dev/x; echo > /usr/x",
        lambda done, box: done.output.count("Read-only") == 3 and "No space" in done.output,
    ),
    Attack("endless output", "yes", _ended("output")),
    Attack(
        "10 MB of output",
        "echo first; head -c 10000000 /dev/zero | tr '\\0' x; echo last",
        lambda done, box: (
            done.output.startswith("first\n")
            and done.output.endswith("last\n")
            and len(done.output) < LIMITS.output_bytes + 99
            and " bytes left out " in done.output
        ),
    ),
    Attack(
        "background processes that hold the output",
        f"(setsid nohup {_LEFT} &) ; {_LEFT} & disown; echo back",
        _says("back"),
    ),
    Attack("a command that ignores TERM", "trap '' TERM INT HUP; while :; do sleep 1; done", _ended("timeout"), 1.5),
    Attack(
        "files of the host",
        "cat {file} /etc/shadow /etc/hostname; ls -A /home /tmp /mnt /srv /opt",
        lambda done, box: done.output.count("No such file") >= 3 and "root:" not in done.output,
    ),
    Attack(
        "links out of the box, for the command and for the worker",
        "ln -s / all; ln -s {file} one; cat all{file} one ../../../..{file}; echo the box > /tmp/x; ln -s /tmp/x x",
        lambda done, box: _unreadable(box, "one") and box.read("x") == b"the box\n",
    ),
    Attack(
        "/proc: environments, roots, memory and descriptors",
        "cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/1/root{file} /proc/self/root{file}; "
        "head -c 1 /proc/kcore /dev/mem; ls -l /proc/*/fd; timeout 1 cat /proc/1/fd/*; echo 1 > /proc/sys/kernel/panic",
        lambda done, box: (
            "HOME=/home/agent" in done.output
            and "socket:" not in done.output
            and done.output.endswith("/proc/sys/kernel/panic: Permission denied\n")
        ),
    ),
    Attack(
        "network: this machine, the world, names, the machine's host",
        _python(
            "import socket\n"
            "for where in (('127.0.0.1', {port}), ('1.1.1.1', 53), ('169.254.169.254', 80)):\n"
            "  try: socket.create_connection(where, 2); print('connected')\n"
            "  except OSError as e: print(e)\n"
            "for what in (socket.AF_VSOCK, socket.AF_PACKET, 38):\n"
            "  try: socket.socket(what, socket.SOCK_STREAM); print('connected')\n"
            "  except OSError as e: print(e)\n"
            "try: print(socket.getaddrinfo('pypi.org', 443), 'connected')\n"
            "except OSError as e: print(e)"
        ),
        lambda done, box: "connected" not in done.output and len(done.output.splitlines()) == 7,
    ),
    Attack("kill everything", "kill -9 1; kill -9 -1; kill -9 $PPID; echo still here", _says("still here")),
    Attack(
        "mounts",
        "mount --bind / /mnt; mount -t tmpfs t /tmp; mount -o remount,rw /; umount -l /testbed; umount /proc; ls",
        lambda done, box: done.output.count("mount: ") == 5 and "code.py" in done.output,
    ),
    Attack(
        "new user namespaces",
        "unshare -Ur true; "
        + _python("import ctypes\nprint('clone', ctypes.CDLL(None).syscall(56, 0x10000000 | 17, 0, 0, 0, 0))"),
        lambda done, box: "unshare failed" in done.output and "clone -1" in done.output,
    ),
    Attack(
        "devices",
        "mknod /tmp/d b 259 0; mknod /testbed/c c 1 1; ls /dev",
        lambda done, box: done.output.count("Operation not permitted") == 2 and "sda" not in done.output,
    ),
    Attack(
        "ptrace of the first process",
        _python(
            "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nprint(c.ptrace(16, 1, 0, 0), ctypes.get_errno())"
        ),
        _says("-1 1"),
    ),
    Attack(
        "memory outside the processes",
        _python(
            "import ctypes, os\nc = ctypes.CDLL(None)\n"
            "try: os.memfd_create('m')\nexcept OSError as e: print(e)\n"
            "print('shm', c.shmget(0, 1 << 30, 0o1600))"
        ),
        _says("not implemented", "shm -1"),
    ),
    Attack(
        "a copy of the library elsewhere",
        f"ls -A {COPY}; python -c 'import wsgiref.util'; echo x > {COPY}/x",
        _says("No module named 'wsgiref.util'", "Read-only"),
    ),
]


def _unreadable(box: Box, path: str) -> bool:
    try:
        box.read(path)
    except OSError:
        return True
    return False
