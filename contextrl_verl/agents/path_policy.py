"""Which edits of a patch count: what decides how checks run is left out, what could leave the repository is refused.

Names only. Nothing here depends on what the code does, so the code under repair cannot talk it round.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

# Kind of protected path -> pattern of the whole path; the first that fits names it.
_PROTECTED = {
    "git": r"(?i:(.*/)?(\.git|git~1)(/.*)?|(.*/)?\.git(attributes|modules|config|ignore_global))",
    "left over": r"(.*/)?(__pycache__|\.(pytest|mypy|ruff)_cache|\.hypothesis|\.tox|\.eggs)(/.*)?|(.*/)?\.coverage",
    "binary": r".*\.(pyc|pyo|pyd|so|dylib)",
    "start of Python": r"(.*/)?(site|user)customize(\.py|/.*)|.*\.(pth|egg-link)|(.*/)?[^/]+\.(dist|egg)-info(/.*)?"
    r"|(.*/)?pyvenv\.cfg|(.*/)?__editable__[^/]*",
    "test runner": r"(.*/)?(conftest\.py|\.?pytest\.(ini|toml)|tox\.ini|setup\.cfg|pyproject\.toml|\.coveragerc)",
    "name of the runner": r"(_pytest|pytest|pluggy|iniconfig|py|unittest)(\.py|/.*)",
    "environment": r"(.*/)?(\.env(rc|\..*)?|\.(bash|zsh|kshrc|profile|inputrc|netrc|pypirc|condarc)[^/]*"
    r"|\.python-version|\.tool-versions|pip\.(conf|ini)|\.config/.*|\.ssh/.*)",
    "program": r"(.*/)?(python[\d.]*|pypy[\d.]*|pytest|py\.test|pip[\d.]*|git|bash|sh|dash|env|tox|nox|timeout)",
    "test": r"(.*/)?(tests?|testing)/.*|(.*/)?(test_[^/]*|[^/]*_tests?|tests?)\.py",
}
# Taken from the reference where it has them: with an agent's own, its options would decide how tests run.
RESTORED = ("test runner",)
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.S)
_ESCAPES = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}


class Refused(ValueError):
    """A patch of which nothing may be applied; ``reason`` is one of outside, symlink, submodule, unreadable."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class FileEdit(NamedTuple):
    """One file of a diff in git's format: its paths before and after (the same unless it was moved) and its text."""

    paths: tuple[str, ...]
    text: str
    binary: bool


class Kept(NamedTuple):
    """The patch without protected edits, and how many of those were left out, by kind."""

    patch: str
    dropped: dict[str, int]


def kind_of(path: str, more: Sequence[str] = ()) -> str:
    """The kind of a protected path, "" for any other; ``more`` are shell patterns of further ones."""
    for kind, pattern in _PROTECTED.items():
        if re.fullmatch(pattern, path):
            return kind
    return "named by the task" if any(fnmatchcase(path, pattern) for pattern in more) else ""


def kept(patch: str, reference: str = "", tests: str = "", more: Sequence[str] = ()) -> Kept:
    """What of an agent's patch is applied before the checks.

    Protected paths are dropped. Those that the ``reference`` edits are no tests in truth (``lib/testing/tool.py``) and
    stay, but for the runner's settings (see ``restored``) and what the task's ``tests`` patch brings.
    Raises Refused.
    """
    theirs = set(paths_of(reference))
    replaced = set(paths_of(tests))
    texts, dropped = [], Counter[str]()
    for edit in edits(patch):
        kind = next(filter(None, (_dropped(path, theirs, replaced, more) for path in edit.paths)), "")
        if kind := kind or ("binary" if edit.binary else ""):
            dropped[kind] += 1
        else:
            texts.append(edit.text)
    return Kept("".join(texts), dict(dropped))


def _dropped(path: str, theirs: Collection[str], replaced: Collection[str], more: Sequence[str]) -> str:
    kind = kind_of(path, more)
    if path in replaced:
        return kind or "test"
    return "" if path in theirs and kind not in RESTORED else kind


def restored(reference: str) -> str:
    """The reference's own edits of protected paths that are never an agent's: its runner's settings, conftest.py."""
    return "".join(edit.text for edit in edits(reference) if all(kind_of(path) in RESTORED for path in edit.paths))


def paths_of(patch: str) -> list[str]:
    """Every path that a diff names. Raises Refused."""
    return [path for edit in edits(patch) for path in edit.paths]


def edits(patch: str) -> Iterator[FileEdit]:
    """The files of a diff in git's format, in order.

    Raises Refused for one that is not in that format or names a place outside the repository, a link, a submodule.
    """
    starts = [match.start() for match in re.finditer(r"^diff --git ", patch, re.M)]
    if patch[: starts[0] if starts else None].strip():
        raise Refused("unreadable", "the patch does not begin with a line 'diff --git'")
    for start, end in zip(starts, [*starts[1:], len(patch)], strict=False):
        yield _edit(patch[start:end])


def _edit(text: str) -> FileEdit:
    lines = text.removesuffix("\n").split("\n")
    first = next((number for number, line in enumerate(lines) if line.startswith("@@ ")), len(lines))
    header, binary = lines[1:first], False
    modes, named = set(), []
    for line in header:
        binary = binary or line.startswith(("Binary files ", "GIT binary patch"))
        if re.match(r"(new file|deleted file|new|old) mode \d+|index \S+ \d{6}$", line):
            modes.add(line.split()[-1])
        elif match := _NAMES.fullmatch(line):
            named.append(_name(*match.groups()))
    paths = tuple(dict.fromkeys(path for path in named if path != "/dev/null")) or _of_first_line(lines[0])
    for path in paths:
        if path.startswith(("/", "~")) or ".." in path.split("/") or "\0" in path:
            raise Refused("outside", f"{path!r} is not a path inside the repository")
    for mode, reason in (("120000", "symlink"), ("160000", "submodule")):
        if mode in modes:
            raise Refused(reason, f"{paths[0]} is a {reason}")
    if not binary:
        _check_hunks(lines[first:], paths[0])
    return FileEdit(paths, text, binary)


def _check_hunks(lines: list[str], path: str) -> None:
    """Raises Refused when there is anything but hunks: git would read the head of another file there."""
    old = new = 0
    for line in lines:
        if old <= 0 and new <= 0 and (match := _HUNK.match(line)):
            old, new = (int(count) if count else 1 for count in match.groups())
            continue
        if line.startswith("\\"):
            continue
        mark = line[:1] or " "
        old, new = old - (mark in " -"), new - (mark in " +")
        if mark not in " +-" or old < 0 or new < 0:
            break
    else:
        if old == new == 0:
            return
    raise Refused("unreadable", f"the hunks of {path} in the patch do not have the length that they say")


_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_NAMES = re.compile(r'(---|\+\+\+|rename from|rename to|copy from|copy to) ("(?:[^"\\]|\\.)*"|[^\t\r]+?)[\t\r]*')


def _name(kind: str, text: str) -> str:
    path = unquoted(text)
    if kind not in ("---", "+++") or path == "/dev/null":
        return path
    if path[:2] not in ("a/", "b/"):
        raise Refused("unreadable", f"{path!r} in the patch lacks git's prefix a/ or b/")
    return path[2:]


def _of_first_line(line: str) -> tuple[str, ...]:
    """The paths of an edit without text: of a mode, of an empty or binary file, where both are the same."""
    line = line.removeprefix("diff --git ").rstrip("\r")
    if line.startswith('"'):
        both = re.fullmatch(r'("(?:[^"\\]|\\.)*") ("(?:[^"\\]|\\.)*")', line)
        names = [_name("---", part) for part in both.groups()] if both else []
    else:
        half = len(line) // 2
        names = [line[2:half], line[half + 3 :]] if line[half : half + 3] == " b/" and line[:2] == "a/" else []
    if len(names) != 2 or names[0] != names[1] or not names[0]:
        raise Refused("unreadable", f"the patch's line {line[:200]!r} names no one path")
    return (names[0],)


def unquoted(name: str, errors: str = "surrogateescape") -> str:
    """A path of a diff without git's quotes and octal escapes; ``errors`` as of bytes.decode."""
    if len(name) < 2 or name[0] != '"' or name[-1] != '"':
        return name

    def letter(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) & 255]) if code.isdigit() else _ESCAPES.get(code, code)

    return _ESCAPE.sub(letter, name[1:-1].encode("utf-8", "surrogatepass")).decode("utf-8", errors)
