"""What a path of a repository is, by its name: code, or something that does not say where a bug was."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

PathKind = Literal["code", "test", "docs", "lock", "changelog", "binary"]

_LOCKS = {
    *("package-lock.json", "yarn.lock", "pnpm-lock.yaml", "poetry.lock", "pipfile.lock", "cargo.lock", "go.sum"),
    *("uv.lock", "pdm.lock", "composer.lock", "gemfile.lock", "npm-shrinkwrap.json", "flake.lock", "conda-lock.yml"),
}
_DOCS = {".md", ".rst", ".txt", ".adoc", ".tex", ".markdown"}
_BINARY = {
    *(".png", ".jpg", ".jpeg", ".gif", ".ico", ".pdf", ".zip", ".gz", ".xz", ".bz2", ".whl", ".so", ".pyc", ".npy"),
    *(".npz", ".mo", ".ttf", ".woff", ".woff2", ".jar", ".sqlite", ".db", ".parquet", ".bin", ".exe", ".dll", ".svgz"),
}
_CHANGELOG = re.compile(r"(?:change(?:s|log)|history|news|release[-_]?notes?|whats[-_]?new)(?:[-_.].*)?", re.I)
_TEST_NAME = re.compile(r"(?:test|tests)_.*|.*_tests?|tests?|conftest|.*\.(?:test|spec)", re.I)


def path_kind(path: str) -> PathKind:
    """The kind of a path. A top folder ``test`` holds tests; a package deeper down that is called so may be a library
    for testing, so there only ``tests`` does."""
    pure = PurePosixPath(path)
    folders = [part.lower() for part in pure.parts[:-1]]
    name, ending = pure.name.lower(), pure.suffix.lower()
    if name in _LOCKS:
        return "lock"
    if ending in _BINARY:
        return "binary"
    if "tests" in folders or folders[:1] == ["test"] or "__tests__" in folders or _TEST_NAME.fullmatch(pure.stem):
        return "test"
    known = ending in _DOCS or ending == ""
    if (known and _CHANGELOG.fullmatch(pure.stem)) or {"changelog.d", "newsfragments", "changelog"} & set(folders):
        return "changelog"
    if ending in _DOCS and name not in ("requirements.txt", "cmakelists.txt"):
        return "docs"
    if folders[:1] in (["docs"], ["doc"], ["documentation"]):
        return "docs"
    return "code"
