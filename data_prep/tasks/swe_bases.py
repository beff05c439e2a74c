"""Folders that repair tasks start from: a repository at one commit, without the history that holds its repairs.

A folder is named by what is in it, so tasks of one state share it, and a builder that is run again finds it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from contextrl_verl.agents.task import SweTask
from data_prep.common.pipeline import fingerprint
from data_prep.images.sources.base import RowRejected

_DATE = "2024-01-01T00:00:00 +0000"
_GIT = {
    "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "tasks", "GIT_AUTHOR_EMAIL": "tasks@localhost", "GIT_AUTHOR_DATE": _DATE,
    "GIT_COMMITTER_NAME": "tasks", "GIT_COMMITTER_EMAIL": "tasks@localhost", "GIT_COMMITTER_DATE": _DATE,
}  # fmt: skip


class Draft(NamedTuple):
    """A task before anybody tried it, the commit of its base, and what train and validation may not share."""

    task: SweTask
    commit: str
    unit: str


def git(*arguments: str, given: str = "", **environment: str) -> str:
    """What git says, with no configuration but its defaults; raises RowRejected."""
    done = subprocess.run(
        ["git", *arguments], input=given.encode("utf-8", "surrogateescape"), env=_GIT | environment, capture_output=True
    )
    if done.returncode:
        raise RowRejected(f"git {arguments[-1][:40]} failed", done.stderr.decode("utf-8", "replace").strip()[:300])
    return done.stdout.decode("utf-8", "replace").strip()


def make_base(bases: Path, fill: Callable[[Path], None], *, bug: str = "", name: str = "") -> tuple[str, str]:
    """A folder of ``bases`` with what ``fill`` writes into an empty one and the diff ``bug`` on top, as one commit.

    Returns its name and the commit. ``name``: of the image, whose files hold more than what is committed: what its own
    ignore rules leave out is then left out. Raises RowRejected.
    """
    bases.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".part-", dir=bases))
    try:
        scratch.chmod(0o755)  # read by the sandbox's own user
        fill(scratch)
        if bug:
            _apply(scratch, bug)
        commit = _one_commit(scratch, not name)
        folder = bases / fingerprint([name, commit])
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        return folder.name, commit
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def from_checkout(checkout: Path, commit: str) -> Callable[[Path], None]:
    """Fills a folder with the files of a commit; ``""``: the one that is checked out, without what was changed since.

    Only the objects of the repository are read: its configuration, hooks and attributes would be code of somebody else.
    """

    def fill(folder: Path) -> None:
        home = checkout if (checkout / "objects").is_dir() else checkout / ".git"
        if not (home / "objects").is_dir():
            raise RowRejected("the checkout is no git repository", f"{checkout} has no .git/objects")
        with tempfile.TemporaryDirectory(prefix="base-") as place:
            own = f"{place}/git"
            git("init", "-q", "--bare", "--template=", own)
            Path(own, "objects", "info").mkdir(parents=True, exist_ok=True)
            Path(own, "objects", "info", "alternates").write_text(f"{(home / 'objects').resolve()}\n")
            named = commit or _head(home)
            try:
                if not re.fullmatch(r"[0-9a-fA-F]{7,64}", named):
                    raise RowRejected("", f"{named[:80]!r} is no hash")
                git(f"--git-dir={own}", "read-tree", f"{named}^{{tree}}")
            except RowRejected as error:
                raise RowRejected("the checkout has no such commit", f"{checkout}: {error.detail}") from None
            git(f"--git-dir={own}", f"--work-tree={folder}", "checkout-index", "-a", "-q")

    return fill


def from_folder(source: Path, *leave: str) -> Callable[[Path], None]:
    """Fills a folder with a copy of another, such as an unpacked image's, without its history and files so named."""

    def fill(folder: Path) -> None:
        if not source.is_dir():
            raise RowRejected("the image holds no repository", f"{source} is no folder")
        left = shutil.ignore_patterns(".git", *leave)
        shutil.copytree(source, folder, symlinks=True, dirs_exist_ok=True, ignore=left)

    return fill


def _head(home: Path) -> str:
    """The commit that is checked out."""
    said = (home / "HEAD").read_text().strip()
    if not said.startswith("ref: "):
        return said
    name = said.removeprefix("ref: ")
    if (home / name).is_file():
        return (home / name).read_text().strip()
    packed = home / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    found = next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")
    if not found:
        raise RowRejected("the checkout has no such commit", f"{home / 'HEAD'} says {said}")
    return found


def _apply(folder: Path, diff: str) -> None:
    try:
        # Outside of a repository git apply works on files alone, and leaves the folder to nobody's links.
        git(
            "-C",
            str(folder),
            "apply",
            "--whitespace=nowarn",
            "-",
            given=diff,
            GIT_CEILING_DIRECTORIES=str(folder.parent),
        )
    except RowRejected as error:
        raise RowRejected("the bug cannot be put in", error.detail) from None


def _one_commit(folder: Path, everything: bool) -> str:
    shutil.rmtree(folder / ".git", ignore_errors=True)
    at = ("-C", str(folder))
    git(*at, "init", "-q", "--template=", "-b", "main")
    exclude = folder / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.write_text("__pycache__/\n")
    git(*at, "add", "-A", *(("-f",) if everything else ()))
    git(*at, "commit", "-q", "--allow-empty", "--no-verify", "-m", "Import the sources")
    return git(*at, "rev-parse", "HEAD")
