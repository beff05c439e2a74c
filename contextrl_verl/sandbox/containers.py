"""Boxes in containers of Apptainer or Docker, for machines where bubblewrap cannot work; they need an image's name.

One container for every command, so that no process outlives it, with a copy of the repository, a /tmp and a home bound
into it; what a command writes elsewhere is gone with its container. Weaker than bubblewrap: no bound but each file's on
what is written, and with Apptainer none on memory but each process' own. Their daemons and images must be of this
machine. Written from their documentation.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from contextrl_verl.errors import told_by
from contextrl_verl.sandbox.box import (
    ENVIRONMENT,
    HOME,
    WORKPLACE,
    Base,
    Finished,
    InfrastructureError,
    Limits,
    Rung,
    refused,
)
from contextrl_verl.sandbox.changes import patch_between
from contextrl_verl.sandbox.keeper import kernel
from contextrl_verl.sandbox.keeper.command import Output

_GRACE, _PATIENCE = 15.0, 600.0
_EXPORT = "cp -r -P --preserve=mode,timestamps,links /testbed/. /tmp/exported"


class Containers:
    """``program`` is docker or apptainer; ``limits`` as far as it can hold them."""

    def __init__(self, program: str, limits: Limits) -> None:
        self._program, self.limits = program, limits

    def start(self, base: Base) -> ContainerBox:
        if not base.image:
            detail = f"{self._program} needs an image, and this task names none; use bubblewrap for it"
            raise InfrastructureError("image", detail)
        return ContainerBox(self._program, base, self.limits)


class ContainerBox:
    """A folder of this machine with what the box's commands see as /testbed, /tmp and home."""

    def __init__(self, program: str, base: Base, limits: Limits) -> None:
        self._program, self._image, self._hidden, self._limits = program, base.image or "", base.hidden, limits
        self._place = Path(tempfile.mkdtemp(prefix="contextrl-box-"))
        for name in (WORKPLACE, "/tmp", HOME, "/nothing"):
            Path(f"{self._place}{name}").mkdir(parents=True)
        try:
            self._start = base.folder or self._exported()
            shutil.copytree(self._start, f"{self._place}{WORKPLACE}", symlinks=True, dirs_exist_ok=True)
        except (OSError, InfrastructureError) as error:
            self.close()
            raise InfrastructureError("image", f"a box of {self._image} cannot be made: {told_by(error)}") from error

    def _exported(self) -> Path:
        """The repository that lies in the image."""
        done = self._run(_EXPORT, "", _PATIENCE, (HOME, "/tmp"))
        if done.returncode:
            raise InfrastructureError("image", f"its /testbed cannot be copied ({done.output.strip()[:200]})")
        return (self._place / "tmp/exported").rename(self._place / "start")

    def run(self, command: str, *, stdin: str = "", seconds: float | None = None) -> Finished:
        if impossible := refused(command):
            return impossible
        command = command.encode(errors="replace").decode()
        return self._run(command, stdin, seconds or self._limits.seconds, (WORKPLACE, HOME, "/tmp"))

    def _run(self, command: str, stdin: str, seconds: float, bound: tuple[str, ...]) -> Finished:
        limits, name = self._limits, f"contextrl-{uuid.uuid4().hex[:12]}"
        for path in bound:
            os.chmod(f"{self._place}{path}", 0o755)  # an earlier command cannot keep the next container from starting
        # Apptainer sets up the home itself.
        shown = [f"{self._place}{path}:{path}" for path in bound if path != HOME or self._program == "docker"]
        shown += [f"{self._place}/nothing:{path}:ro" for path in self._hidden]
        if self._program == "docker":
            client = ["docker", "run", "--rm", "-i", "--init", "--name", name, "--network", "none", "--cap-drop", "ALL"]
            client += ["--security-opt", "no-new-privileges", "--user", f"{os.getuid()}:{os.getgid()}"]
            client += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
            client += ["--pids-limit", str(limits.processes + 4), "--entrypoint", "timeout", "--workdir", bound[0]]
            client += [part for variable in ENVIRONMENT.items() for part in ("--env", "=".join(variable))]
            client += [part for path in shown for part in ("--volume", path)] + [self._image]
        else:
            client = ["apptainer", "--silent", "exec", "--containall", "--cleanenv", "--writable-tmpfs"]
            client += ["--home", f"{self._place}{HOME}:{HOME}"]
            client += ["--net", "--network", "none", "--no-privs", "--pwd", bound[0]]
            for variable, value in ENVIRONMENT.items():
                client += ["--env", f"{variable}={value}"] if variable != "HOME" else []
            client += [part for path in shown for part in ("--bind", path)] + [self._image, "timeout"]
        # The name tells that the container was started: an exit code, or a message, could be the command's own.
        bounds = (
            f"echo {name}; ulimit -c 0; ulimit -v {limits.address_bytes >> 10}; ulimit -f {limits.file_bytes >> 10}"
        )
        inner = f'{bounds}; exec bash -c "$1"'
        # The clock is inside: to end Docker's client would leave the command running.
        client += ["-s", "KILL", f"{seconds:.3f}", "bash", "-c", inner, "bash", command]
        done = _watched(client, stdin, seconds + _GRACE, limits)
        if done.ended and self._program == "docker":
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(["docker", "kill", name], capture_output=True, timeout=_GRACE, check=False)
        told, started, output = done.output.partition(f"{name}\n")
        if not started:
            detail = f"{self._program} could not start a container of {self._image}: {told.strip()[:300]}"
            raise InfrastructureError("container", detail)
        timeout = done.returncode == 137 and done.seconds >= seconds
        return done._replace(output=output, ended=done.ended or ("timeout" if timeout else ""))

    def read(self, path: str) -> bytes:
        return kernel.read(os.path.join(WORKPLACE, path), str(self._place))

    def write(self, path: str, data: bytes) -> None:
        kernel.write(os.path.join(WORKPLACE, path), data, str(self._place))

    def diff(self) -> str:
        return patch_between(self._start, Path(f"{self._place}{WORKPLACE}"))

    def close(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)


def _watched(client: list[str], stdin: str, seconds: float, limits: Limits) -> Finished:
    """A client, its output bounded, ended after ``seconds``."""
    began, output, ended = time.monotonic(), Output(limits.output_bytes), ""
    with tempfile.TemporaryFile() as given:
        given.write(stdin.encode(errors="replace"))
        given.seek(0)
        try:
            process = subprocess.Popen(
                client, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise InfrastructureError("container", f"{client[0]} cannot be started ({error})") from error
    assert process.stdout
    with process.stdout as reader:
        while not ended:
            left = began + seconds - time.monotonic()
            if left <= 0:
                ended = "timeout"
            elif select.select([reader], [], [], left)[0]:
                if not (part := os.read(reader.fileno(), 1 << 16)):
                    break
                output.add(part)
                ended = "output" if output.total > limits.flood_bytes else ""
        if ended:
            process.kill()
        returncode = process.wait()
    returncode = 137 if ended else returncode if returncode >= 0 else 128 - returncode
    return Finished(returncode, output.kept().decode(errors="replace"), ended, time.monotonic() - began)


def container_rung(program: str) -> Rung:
    """Is the program there, and for Docker its daemon?"""
    if not shutil.which(program):
        return Rung(program, False, f"the program {program} is not installed", f"install {program}")
    asked = ["docker", "version", "--format", "{{.Server.Version}}"] if program == "docker" else [program, "--version"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Rung(
            program, False, f"{program} does not answer ({told_by(error)})", f"look why {' '.join(asked)} fails"
        )
    if done.returncode or not done.stdout.strip():
        told = " ".join(done.stderr.split())[:200] or "no word"
        fix = (
            "start its daemon, and let this user use it" if program == "docker" else f"look why {' '.join(asked)} fails"
        )
        return Rung(program, False, f"{program} does not work here ({told.rstrip('.')})", fix)
    return Rung(program, True, f"{program} {done.stdout.strip()}, for tasks with an image; weaker than bubblewrap")
