"""A scratch folder with a clean environment, in which commands run under limits of time, memory and output."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any, NamedTuple

from contextrl_verl.errors import UserError

# How the working folder is called in everything that is recorded, wherever the scratch folder really is.
WORKPLACE = "/testbed"
_DATE = "2024-01-01T00:00:00 +0000"
_ENVIRONMENT = {
    **{"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "dumb", "COLUMNS": "80", "LINES": "24"},
    **{"PAGER": "cat", "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    **{"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
    **{"GIT_AUTHOR_NAME": "forge", "GIT_AUTHOR_EMAIL": "forge@localhost", "GIT_AUTHOR_DATE": _DATE},
    **{"GIT_COMMITTER_NAME": "forge", "GIT_COMMITTER_EMAIL": "forge@localhost", "GIT_COMMITTER_DATE": _DATE},
}
# One question to inside/observe.py may take so long, and a process of it so much of the processor.
_QUESTION_SECONDS = 10


class ForgeError(UserError, ValueError):
    """Something the user asked for that cannot be done: says what, and what to do."""


class Finished(NamedTuple):
    """The shell's exit status (128 and the signal's number when it was ended), and standard output and error in the
    order in which they were written, with the machine's folders renamed."""

    returncode: int
    output: str


class Call(NamedTuple):
    """One call as Python source."""

    imports: tuple[str, ...]
    text: str


class Outcome(NamedTuple):
    """What a call gave: the text of a ``value``, or an ``error``'s name and message; ``bad`` when it says nothing."""

    kind: str
    text: str

    @property
    def usable(self) -> bool:
        return self.kind != "bad"


class Sandbox:
    """``root/testbed`` is where commands run, each within the limits; home and temporary files lie beside it."""

    def __init__(self, root: Path, *, seconds: int = 20, memory: int = 1 << 30, file_bytes: int = 1 << 24) -> None:
        self.root = root.resolve()
        self.seconds = seconds
        self.limits = f"ulimit -t {seconds} -v {memory >> 10} -f {file_bytes >> 10} -c 0"
        self.work = self.root / "testbed"
        for name in ("testbed", "home", "tmp", "bin"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        shutil.copytree(Path(__file__).parent / "inside", self.root / "inside", ignore=lambda *_: ["__pycache__"])
        for name in ("python", "python3"):
            # Not a link: a virtual environment's interpreter finds its packages by the folder it lies in.
            wrapper = self.root / "bin" / name
            wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
            wrapper.chmod(0o755)
        # Nothing of the user's environment but where the system's programs are.
        self._environment = _ENVIRONMENT | {
            "PATH": f"{self.root / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONPATH": str(self.root / "inside"),
            "FORGE_ROOT": str(self.root),
            "GIT_CEILING_DIRECTORIES": str(self.root),
        }
        version = f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
        paths = sysconfig.get_paths()
        places = {str(self.work): WORKPLACE, str(self.root): "/scratch", paths["stdlib"]: version}
        places |= {paths["purelib"]: f"{version}/site-packages", sys.prefix: "/usr", sys.base_prefix: "/usr"}
        places |= {os.path.realpath(real): shown for real, shown in places.items()}
        self._places = sorted(places.items(), key=lambda place: -len(place[0]))

    def run(self, command: str, given: str = "", seconds: float | None = None) -> Finished:
        """Run one shell command in the working folder with ``given`` on standard input.

        It is ended after ``seconds``, and with it whatever it left behind in the background.
        """
        source, captured = self.root / "given", self.root / "captured"
        source.write_text(given, encoding="utf-8")
        # Into a file, not a pipe: the size limit then bounds the output as well.
        with open(captured, "wb") as output, open(source, "rb") as standard_input:
            process = subprocess.Popen(
                ["bash", "-c", f'{self.limits}; exec bash -c "$1"', "bash", command],
                cwd=self.work,
                env=self._environment,
                start_new_session=True,
                stdin=standard_input,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            timer = threading.Timer(seconds or self.seconds, _end, [process])
            timer.start()
            try:
                returncode = process.wait()
            finally:
                timer.cancel()
                _end(process)
        text = captured.read_bytes().decode("utf-8", "replace").replace("\0", "")
        return Finished(returncode if returncode >= 0 else 128 - returncode, self._renamed(text))

    def _renamed(self, text: str) -> str:
        """``text`` without the names of this machine's folders."""
        for real, shown in self._places:
            text = text.replace(real, shown)
        return text

    def _answers(self, module: str, questions: Sequence[Mapping[str, Any]]) -> list[Any]:
        """What inside/observe.py says to each question about a module; None where it has no answer."""
        folder = self.root / "answers"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        script = f"python {shlex.quote(str(self.root / 'inside' / 'observe.py'))} {shlex.quote(str(folder))}"
        asked = [{"module": module, "files": {}, **question} for question in questions]
        self.run(script, json.dumps(asked), self.seconds + _QUESTION_SECONDS * len(asked))
        files = [folder / str(number) for number in range(len(asked))]
        return [json.loads(self._renamed(file.read_text("utf-8"))) if file.exists() else None for file in files]

    def observe(
        self, module: str, questions: Iterable[tuple[Mapping[str, str], Sequence[Call]]]
    ) -> list[list[Outcome] | None]:
        """What calls of a module give, each question in a new process; None where that was ended or crashed.

        A question is texts that some of the library's files have instead of those on disk, by path, and the calls.
        """
        answers = self._answers(module, [{"files": files, "calls": calls} for files, calls in questions])
        return [answer and [Outcome(*item) for item in answer] for answer in answers]

    def invent(self, module: str, qualname: str, literals: Sequence[str | int], seed: str) -> list[Call]:
        """Calls of a function that give a value or a meaningful error."""
        (answer,) = self._answers(module, [{"invent": {"qualname": qualname, "literals": literals, "seed": seed}}])
        return [Call(tuple(imports), text) for imports, text in answer or ()]

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

    def write(self, files: Mapping[str, str]) -> None:
        """Write files of the working folder, with byte code that is checked against the source's content at import.

        Python's default is to compare the time of change, whole seconds, and the size; an edit that swaps one character
        within the second in which the file was compiled would go unseen.
        """
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            if path.suffix == ".py":
                compileall.compile_file(path, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)

    def restore(self) -> None:
        """Back to the commit, and empty home and temporary folders."""
        done = self.run("git reset -q --hard && git clean -fdq")
        if done.returncode:
            raise ForgeError(f"{self.work} cannot be restored: {done.output.strip()}; is the disk full?")
        for name in ("home", "tmp"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command's whole session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
