"""Paths as a run writes them to paths below its repository."""

from __future__ import annotations

import posixpath
import re

from data_prep.trajectories.run import AgentRun

_ROOTS = ("/testbed", "/workspace/repo", "/repo")
_SYSTEM = {"tmp", "usr", "etc", "opt", "var", "bin", "lib", "proc", "sys", "dev", "home", "root", "mnt"}
_UPLOADED = re.compile(r"<uploaded_files>\s{0,9}(/[^\s<]{1,200})\s{0,9}</uploaded_files>")


class Folders:
    """Where the repository is and where the shell stands."""

    def __init__(self, run: AgentRun) -> None:
        uploaded = (_UPLOADED.search(turn.content) for turn in run.messages[:3] if turn.role == "user")
        self._roots = [*_ROOTS, *(found[1].rstrip("/") for found in uploaded if found)]
        self._here = ""

    def below(self, path: str) -> str | None:
        """The path below the repository; None outside of it."""
        if path.startswith("/"):
            root = next((root for root in self._roots if path == root or path.startswith(root + "/")), None)
            if root is None:
                return None
            path = path[len(root) + 1 :]
        else:
            path = posixpath.join(self._here, path)
        path = posixpath.normpath(path) if path else "."
        return None if path.startswith("..") else path

    def home(self) -> None:
        """Back to the repository's root, where every command of mini-swe-agent starts."""
        self._here = ""

    def change(self, path: str) -> None:
        """`cd`. An unknown absolute folder near the top that is no system folder is taken for the repository's."""
        below = self.below(path)
        parts = path.strip("/").split("/")
        if below is None and path.startswith("/") and len(parts) <= 2 and parts[0] not in _SYSTEM:
            self._roots.append(path.rstrip("/"))
        self._here = "" if below in (None, ".") else below or ""
