"""Finds an installed pure-Python distribution and copies its modules into a folder."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from contextrl_verl.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_BINARY = (".so", ".pyd", ".dylib", ".dll")


class ForgeError(UserError, ValueError):
    """Something the user asked for that cannot be done: says what, and what to do."""


@dataclass(frozen=True)
class Library:
    """An installed distribution.

    Attributes:
        name: canonical name, as in ``forge__<name>-<number>``.
        version: of the installed distribution.
        modules: paths of its ``.py`` files relative to ``root``, sorted.
        extras: other files that its packages hold, such as templates.
        root: the folder that the paths start from.
    """

    name: str
    version: str
    modules: tuple[str, ...]
    extras: tuple[str, ...]
    root: Path

    def copy_to(self, folder: Path) -> None:
        """Copy every file to the same relative path under ``folder``."""
        for path in (*self.modules, *self.extras):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / path, target)


def find_library(name: str) -> Library:
    """The installed distribution ``name``.

    Raises ForgeError when the name is not a distribution's name, is not installed, or has no plain Python files.
    """
    if not _NAME.fullmatch(name):
        raise ForgeError(
            f"--library {name!r} is not the name of a distribution; use letters, digits, '.', '_' and '-', as in 'rich'"
        )
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise ForgeError(
            f"--library {name}: no such distribution is installed; install it with pip, or name another one"
        ) from None
    root = Path(str(distribution.locate_file(""))).resolve()
    listed = [str(path) for path in distribution.files or ()]
    inside = sorted(path for path in listed if _belongs(path) and (root / path).is_file())
    binary = [path for path in inside if path.endswith(_BINARY)]
    if binary:
        raise ForgeError(
            f"--library {name} is not pure Python: it holds {binary[0]}; name a library without such files"
        )
    modules = tuple(path for path in inside if path.endswith(".py"))
    if not modules:
        raise ForgeError(
            f"--library {name}: the installed distribution lists no .py file (an editable install lists none); "
            "install it from a wheel, or name another library"
        )
    canonical = re.sub(r"[-_.]+", "-", name).lower()
    extras = tuple(path for path in inside if not path.endswith(".py"))
    return Library(canonical, distribution.version, modules, extras, root)


def _belongs(path: str) -> bool:
    """Whether a listed file is part of a package, and not metadata, a script elsewhere, or byte code."""
    first, *_ = parts = path.split("/")
    if ".." in parts or path.startswith("/") or "__pycache__" in parts:
        return False
    return not first.endswith((".dist-info", ".egg-info", ".data", ".pth"))
