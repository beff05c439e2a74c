"""Where else on this machine the code under repair lies: an agent that finds an installed copy has found the answer."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

# What a box shows of the machine: the system's programs and libraries, and below the interpreter.
_SYSTEM = ("/usr", "/lib", "/lib64")
_ARCHIVES = (".whl", ".egg", ".zip")
# Where modules of a single file are packages of their own, and not a part of another.
_TOP = re.compile(r"site-packages|dist-packages|_vendor|python\d[\d.]*")


def copies_of(packages: Sequence[str]) -> tuple[str, ...]:
    """Folders, modules and archives with a copy of one of these top-level modules, vendored ones too.

    The first call for some modules takes a walk through the interpreter's and the system's folders.
    """
    return _copies(tuple(sorted(set(packages)))) if packages else ()


@lru_cache(maxsize=64)
def _copies(packages: tuple[str, ...]) -> tuple[str, ...]:
    named = (sys.prefix, sys.base_prefix, *_SYSTEM)
    roots = {os.path.realpath(root) for root in named}
    # What lies in another root is walked with it.
    outer = [root for root in roots if not any(root.startswith(other.rstrip("/") + "/") for other in roots - {root})]
    found = [path for root in sorted(outer) for path in copies_under(Path(root), packages)]
    # A box shows the interpreter under both of its names, where one leads through a link.
    linked = [(Path(os.path.realpath(name)), Path(name)) for name in named[:2] if os.path.realpath(name) != name]
    other = [name / path.relative_to(real) for real, name in linked for path in found if path.is_relative_to(real)]
    return tuple(sorted({str(path) for path in (*found, *other)}))


def copies_under(root: Path, packages: Sequence[str]) -> Iterator[Path]:
    """The copies under one folder; links are not followed."""
    names = "|".join(map(re.escape, packages))
    module = re.compile(rf"(?:{names})(?:\.[\w-]+)*\.(?:py|pyc|so|pyd)")
    member = re.compile(rf"(?:.*/(?:{_TOP.pattern})/)?(?:{names})(?:/__init__)?\.pyc?")
    for folder, folders, files in os.walk(root):
        for name in [name for name in folders if name in packages]:
            if any(os.path.exists(os.path.join(folder, name, f"__init__.{ending}")) for ending in ("py", "pyc")):
                folders.remove(name)
                yield Path(folder, name)
        top = _TOP.fullmatch(os.path.basename(folder.removesuffix("/__pycache__")))
        for name in files:
            if (top and module.fullmatch(name)) or (name.endswith(_ARCHIVES) and _holds(Path(folder, name), member)):
                yield Path(folder, name)


def _holds(archive: Path, member: re.Pattern[str]) -> bool:
    try:
        with zipfile.ZipFile(archive) as file:
            return any(map(member.fullmatch, file.namelist()))
    except (OSError, zipfile.BadZipFile):
        return False
