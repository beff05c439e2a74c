"""A scratch folder with a clean environment, in which commands run under limits of time, memory and output."""

from __future__ import annotations

import contextlib
import os
import py_compile
import resource
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.forge.library import ForgeError

# How the working folder is called in everything that is recorded, wherever the scratch folder really is.
WORKPLACE = "/testbed"
_INSIDE = Path(__file__).parent / "inside"
_DATE = "2024-01-01T00:00:00 +0000"


@dataclass(frozen=True)
class Limits:
    """What one command may use."""

    seconds: int = 20
    memory: int = 1 << 30
    file_bytes: int = 1 << 24


@dataclass(frozen=True)
class Finished:
    """What a command did.

    Attributes:
        returncode: of the shell; 124 when the time was up.
        output: standard output and error in the order in which they were written, with the machine's folders renamed.
        timed_out: whether it was ended for taking too long.
    """

    returncode: int
    output: str
    timed_out: bool = False


class Sandbox:
    """``root/testbed`` is where commands run; home and temporary files lie beside it."""

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self.root = root.resolve()
        self.limits = limits or Limits()
        self.work = self.root / "testbed"
        self._captured = self.root / "captured"
        for name in ("testbed", "home", "tmp", "bin", "inside"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for script in _INSIDE.glob("*.py"):
            shutil.copyfile(script, self.root / "inside" / script.name)
        for name in ("python", "python3"):
            # Not a link: a virtual environment's interpreter finds its packages by the folder it lies in.
            wrapper = self.root / "bin" / name
            wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
            wrapper.chmod(0o755)
        self._renamed = _renamed_folders(self.work, self.root)

    def environment(self) -> dict[str, str]:
        """Nothing of the user's environment but where the system's programs are."""
        return {
            "PATH": f"{self.root / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "dumb",
            "COLUMNS": "80",
            "LINES": "24",
            "PAGER": "cat",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": str(self.root / "inside"),
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "FORGE_ROOT": str(self.root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CEILING_DIRECTORIES": str(self.root),
            "GIT_AUTHOR_NAME": "forge",
            "GIT_AUTHOR_EMAIL": "forge@localhost",
            "GIT_AUTHOR_DATE": _DATE,
            "GIT_COMMITTER_NAME": "forge",
            "GIT_COMMITTER_EMAIL": "forge@localhost",
            "GIT_COMMITTER_DATE": _DATE,
        }

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a shell command in the working folder, talking through pipes; ``end`` it when done."""
        return self._popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End a command and whatever it left behind in the background."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        process.wait()

    def run(self, command: str, given: str = "") -> Finished:
        """Run one shell command in the working folder with ``given`` on standard input."""
        timed_out = False
        source = self.root / "given"
        source.write_text(given, encoding="utf-8")
        # Into a file, not a pipe: the size limit then bounds the output as well.
        with open(self._captured, "wb") as output, open(source, "rb") as standard_input:
            process = self._popen(command, stdin=standard_input, stdout=output, stderr=subprocess.STDOUT)
            try:
                returncode = _wait(process, self.limits.seconds)
            except subprocess.TimeoutExpired:
                timed_out, returncode = True, 124
            finally:
                self.end(process)
        text = self._captured.read_bytes().decode("utf-8", "replace").replace("\0", "")
        return Finished(returncode if returncode >= 0 else 128 - returncode, self.renamed(text), timed_out)

    def _popen(self, command: str, **streams: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.work,
            env=self.environment(),
            start_new_session=True,
            preexec_fn=self._limit,
            **streams,
        )

    def renamed(self, text: str) -> str:
        """``text`` without the names of this machine's folders."""
        for real, shown in self._renamed:
            text = text.replace(real, shown)
        return text

    def commit(self, message: str) -> str:
        """Make the working folder's state the one commit of a new repository; its hash is returned."""
        shutil.rmtree(self.work / ".git", ignore_errors=True)
        done = self.run(
            "git init -q -b main . && mkdir -p .git/info && echo '__pycache__/' > .git/info/exclude && "
            f"git add -A && git commit -q -m '{message}' && git rev-parse HEAD"
        )
        if done.returncode:
            raise ForgeError(f"git could not make a repository: {done.output.strip()}; install git 2.28 or newer")
        return done.output.strip()

    def compile(self, paths: list[str]) -> None:
        """Byte code of the given files, each checked against its source's content at import.

        Python's default is to compare the time of change, whole seconds, and the size; an edit that swaps one character
        within the second in which the file was compiled would go unseen.
        """
        for path in paths:
            source = self.work / path
            target = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
            with contextlib.suppress(py_compile.PyCompileError, SyntaxError, ValueError):
                py_compile.compile(
                    str(source),
                    str(target),
                    doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
                )

    def restore(self) -> None:
        """Back to the commit, and empty home and temporary folders."""
        done = self.run("git reset -q --hard && git clean -fdq")
        if done.returncode:
            raise ForgeError(f"{self.work} cannot be restored: {done.output.strip()}; is the disk full?")
        for name in ("home", "tmp"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir()

    def _limit(self) -> None:
        limits = self.limits
        resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Like ``process.wait(seconds)``, which looks only twenty times a second, but at once where the system can."""
    if hasattr(os, "pidfd_open"):
        descriptor = os.pidfd_open(process.pid)
        try:
            if not select.select([descriptor], [], [], seconds)[0]:
                raise subprocess.TimeoutExpired(process.args, seconds)
        finally:
            os.close(descriptor)
        return process.wait()
    return process.wait(seconds)


def _renamed_folders(work: Path, root: Path) -> list[tuple[str, str]]:
    """Longest first: the real folders that may show in output, and what stands for them."""
    paths = sysconfig.get_paths()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = {
        str(work): WORKPLACE,
        str(root): "/scratch",
        paths["purelib"]: f"/usr/lib/{version}/site-packages",
        paths["stdlib"]: f"/usr/lib/{version}",
        sys.prefix: "/usr",
        sys.base_prefix: "/usr",
    }
    resolved = {os.path.realpath(real): shown for real, shown in found.items()}
    return sorted({**resolved, **found}.items(), key=lambda pair: (-len(pair[0]), pair[0]))
