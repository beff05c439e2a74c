"""A box with a library in it, in which bugs are tried out and scripted agents work."""

from __future__ import annotations

import compileall
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from py_compile import PycInvalidationMode
from tempfile import TemporaryDirectory

from contextrl_verl.agents.observe import answers, observe
from contextrl_verl.agents.task import Call, Outcome
from contextrl_verl.sandbox import open_sandbox
from contextrl_verl.sandbox.box import Base, Box, Finished, Limits
from data_prep.forge.library import ForgeError, Library

LIMITS = Limits(seconds=20, memory_bytes=1 << 30, file_bytes=1 << 24)
_COMMIT = " ".join(
    f"GIT_{one}_NAME=forge GIT_{one}_EMAIL=forge@localhost GIT_{one}_DATE='2024-01-01T00:00:00 +0000'"
    for one in ("AUTHOR", "COMMITTER")
)


@contextmanager
def workplace(found: Library, within: str | None = None) -> Iterator[Workplace]:
    """A box with the library's files, a copy of which lies in a temporary folder (in ``within``) meanwhile."""
    with TemporaryDirectory(prefix="forge-", dir=within) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the box has another user
        for path in found.files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.root / path, folder / path)
        # Byte code that is there from the start and checked against the source's content at import. Python's default is
        # to compare the time of change, whole seconds, and the size: an edit of one character would go unseen.
        mode = PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder, quiet=2, invalidation_mode=mode, stripdir=name)
        with closing(open_sandbox(limits=LIMITS).start(Base(folder))) as box:
            yield Workplace(box)


class Workplace:
    """What the forge does in a box; output and outcomes name nothing of this machine."""

    def __init__(self, box: Box) -> None:
        self.box = box
        version = f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
        paths = sysconfig.get_paths()
        places = {paths["stdlib"]: version, paths["purelib"]: f"{version}/site-packages"}
        places |= {sys.prefix: "/usr", sys.base_prefix: "/usr"}
        places |= {os.path.realpath(real): shown for real, shown in places.items()}
        self._places = sorted(places.items(), key=lambda place: -len(place[0]))

    def run(self, command: str, given: str = "") -> Finished:
        """Run one shell command in the working folder with ``given`` on standard input."""
        done = self.box.run(command, stdin=given)
        return done._replace(output=self._renamed(done.output.replace("\0", "")))

    def _renamed(self, text: str) -> str:
        for real, shown in self._places:
            text = text.replace(real, shown)
        return text

    def observe(
        self, module: str, questions: Iterable[tuple[Mapping[str, str], Sequence[Call]]]
    ) -> list[list[Outcome] | None]:
        """As the function of that name; an outcome that names a place of this machine says nothing."""
        found = observe(self.box, module, questions)
        return [answer and [self._anywhere(outcome) for outcome in answer] for answer in found]

    def _anywhere(self, outcome: Outcome) -> Outcome:
        return outcome if outcome.text == self._renamed(outcome.text) else Outcome("bad", "of this machine")

    def invent(self, module: str, qualname: str, literals: Sequence[str | int], seed: str) -> list[Call]:
        """Calls of a function that give a value or a meaningful error."""
        source = (Path(__file__).parent / "inside" / "invent.py").read_text("utf-8")
        asked = {"source": source, "qualname": qualname, "literals": literals, "seed": seed}
        (answer,) = answers(self.box, [{"module": module, "files": {}, "invent": asked}])
        return [Call(tuple(imports), text) for imports, text in answer or ()]

    def commit(self, message: str) -> str:
        """Make the working folder's state the one commit of a new repository; its hash is returned."""
        done = self.run(
            "rm -rf .git && git init -q -b main . && mkdir -p .git/info && echo '__pycache__/' > .git/info/exclude && "
            f"git add -A && {_COMMIT} git commit -q -m '{message}' && git rev-parse HEAD"
        )
        if done.returncode:
            raise ForgeError(f"git could not make a repository: {done.output.strip()}; install git 2.28 or newer")
        return done.output.strip()

    def write(self, files: Mapping[str, str]) -> None:
        """Write files of the working folder."""
        for name, text in files.items():
            self.box.write(name, text.encode())

    def restore(self) -> None:
        """Back to the commit, and empty home and temporary folders."""
        # This Python may lie below /tmp too: its folder is shown there read-only, and stays.
        there = "find ~ /tmp -xdev -mindepth 1"
        done = self.run(
            f"git reset -q --hard && git clean -fdq && {{ {there} -delete 2> /dev/null; {there} ! -type d | grep .; "
            "test $? = 1; }"
        )
        if done.returncode:
            raise ForgeError(f"the box cannot be restored: {done.output.strip()}; is its disk full?")
