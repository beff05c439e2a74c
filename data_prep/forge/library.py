"""The installed library that bugs are put into."""

from __future__ import annotations

import importlib.metadata
import random
import re
from pathlib import Path
from typing import NamedTuple

from contextrl_verl.errors import UserError
from data_prep.forge.mutate import Function, Mutation, functions


class ForgeError(UserError, ValueError):
    """Something the user asked for that cannot be done: says what, and what to do."""


class Library(NamedTuple):
    """An installed distribution of plain Python; ``files`` of its packages lie under ``root``."""

    name: str
    version: str
    files: tuple[str, ...]
    root: Path

    def texts(self) -> dict[str, str]:
        """The modules by path, without those that are not UTF-8 or whose lines do not all end in a newline."""
        modules = [path for path in self.files if path.endswith(".py")]
        texts = {path: (self.root / path).read_bytes().decode("utf-8", "replace") for path in modules}
        return {path: text for path, text in texts.items() if text.endswith("\n") and not set(text) & set("\r\f\ufffd")}


def find_library(name: str) -> Library:
    """The installed distribution ``name``.

    Raises ForgeError when the name is not a distribution's name, is not installed, or has no plain Python files.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", name):
        raise ForgeError(
            f"--library {name!r} is not the name of a distribution; use letters, digits, '.', '_' and '-', as in 'rich'"
        )
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise ForgeError(f"--library {name}: no such distribution is installed; install it with pip") from None
    root = Path(str(found.locate_file(""))).resolve()
    # Not metadata, scripts elsewhere, or byte code.
    listed = [path for path in found.files or () if not {"/", "..", "__pycache__"} & set(path.parts)]
    metadata = (".dist-info", ".egg-info", ".data", ".pth")
    inside = [path for path in listed if not path.parts[0].endswith(metadata) and (root / path).is_file()]
    files = tuple(sorted(map(str, inside)))
    binary = [path for path in files if path.endswith((".so", ".pyd", ".dylib", ".dll"))]
    if binary:
        raise ForgeError(f"--library {name} is not pure Python: it holds {binary[0]}; name another library")
    if not any(path.endswith(".py") for path in files):
        raise ForgeError(
            f"--library {name}: the installed distribution lists no .py file (an editable install lists none); "
            "install it from a wheel, or name another library"
        )
    return Library(re.sub(r"[-_.]+", "-", name).lower(), found.version, files, root)


def candidates(found: Library, seed: int) -> list[tuple[Function, list[Mutation]]]:
    """Every function of the library with its mutations, in the order in which they are to be tried."""
    listed = [item for path, text in found.texts().items() for item in functions(path, text)]
    random.Random(f"{seed}/order").shuffle(listed)
    # Functions of modules come first, because calls of methods are found less often.
    return sorted(listed, key=lambda candidate: "." in candidate[0].qualname)
