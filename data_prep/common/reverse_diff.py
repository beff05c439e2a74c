"""A unified diff in the other direction: what it added is taken away."""

from __future__ import annotations

import re

_HUNK = re.compile(r"@@ -(\d+(?:,\d+)?) \+(\d+(?:,\d+)?) @@(.*)", re.DOTALL)
_INDEX = re.compile(r"index ([0-9a-f]+)\.\.([0-9a-f]+)(.*)", re.DOTALL)
_PAIR = re.compile(r"diff --git a/(.+) b/(.+)", re.DOTALL)
# Lines of a file's head that come in pairs, or turn into one another.
_PAIRS = (
    ("new file mode ", "deleted file mode "),
    ("rename from ", "rename to "),
    ("old mode ", "new mode "),
    ("--- a/", "+++ b/"),
    ("--- b/", "+++ a/"),
    ("--- ", "+++ "),
)
_HEADS = {**dict(_PAIRS), **{second: first for first, second in _PAIRS}}
_FIRST, _SECOND = ("rename from ", "old mode ", "--- "), ("rename to ", "new mode ", "+++ ")


class DiffError(ValueError):
    """A diff that cannot be reversed; the message says why, in a few words."""


def reverse_diff(diff: str) -> str:
    """The diff that undoes ``diff``, as git writes it: in every run of changes removed lines come first.

    Raises:
        DiffError: binary changes, copies, no hunk, or hunks whose lines do not fit their heads.
    """
    # What follows the last line end is no line.
    lines, rest = diff.split("\n"), []
    if lines[-1] == "":
        rest = [lines.pop()]
    out: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if (hunk := _HUNK.match(line)) is not None:
            end = _end(lines, at + 1, _count(hunk[1]), _count(hunk[2]))
            out.append(f"@@ -{hunk[2]} +{hunk[1]} @@{hunk[3]}")
            out += _body(lines[at + 1 : end])
            at = end
            continue
        if line.startswith(("GIT binary patch", "Binary files ", "copy from ")):
            raise DiffError("it changes more than lines of text")
        out.append(_head(line))
        # Of two lines that trade places the old side comes first.
        if line.startswith(_SECOND) and at and lines[at - 1].startswith(_FIRST):
            out[-2:] = out[:-3:-1]
        at += 1
    if not any(map(_HUNK.match, out)):
        raise DiffError("it has no hunk")
    return "\n".join([*out, *rest])


def _head(line: str) -> str:
    if (index := _INDEX.fullmatch(line)) is not None:
        return f"index {index[2]}..{index[1]}{index[3]}"
    if (pair := _PAIR.fullmatch(line)) is not None:
        return f"diff --git a/{pair[2]} b/{pair[1]}"
    start = max((start for start in _HEADS if line.startswith(start)), key=len, default=None)
    return line if start is None else _HEADS[start] + line[len(start) :]


def _count(span: str) -> int:
    return int(span.partition(",")[2] or 1)


def _end(lines: list[str], at: int, old: int, new: int) -> int:
    """Where the body of a hunk of so many old and new lines ends."""
    while old or new or (at < len(lines) and lines[at].startswith("\\")):
        sign = lines[at][:1] if at < len(lines) else "?"
        # Editors strip the blank of an empty line.
        old -= sign in ("-", " ", "")
        new -= sign in ("+", " ", "")
        if sign not in ("-", "+", " ", "", "\\") or min(old, new) < 0:
            raise DiffError("a hunk does not have the lines that its head says")
        at += 1
    return at


def _body(lines: list[str]) -> list[str]:
    out: list[str] = []
    removed: list[str] = []
    added: list[str] = []
    last = out
    for line in lines:
        if line.startswith("-"):
            added.append("+" + line[1:])
            last = added
        elif line.startswith("+"):
            removed.append("-" + line[1:])
            last = removed
        elif line.startswith("\\"):
            # It speaks of the line before it, wherever that goes.
            last.append(line)
        else:
            out += [*removed, *added, line]
            removed, added, last = [], [], out
    return [*out, *removed, *added]
