"""A unified diff in the other direction: what it added is taken away."""

from __future__ import annotations

import re

_HUNK = re.compile(r"@@ -(\d+(?:,\d+)?) \+(\d+(?:,\d+)?) @@(.*)", re.DOTALL)
_INDEX = re.compile(r"index ([0-9a-f]+)\.\.([0-9a-f]+)(.*)", re.DOTALL)
_FILES = re.compile(r"diff --git a/(.+) b/(.+)", re.DOTALL)
# Starts of a file's head lines that turn into one another, the old side first; of two such lines the old one leads.
_PAIRS = (
    ("new file mode ", "deleted file mode "),
    ("rename from ", "rename to "),
    ("old mode ", "new mode "),
    *(("--- a/", "+++ b/"), ("--- b/", "+++ a/"), ("--- ", "+++ ")),
)
_TURNED = [turn for pair in _PAIRS for turn in (pair, pair[::-1])]


class DiffError(ValueError):
    """A diff that cannot be reversed; the message says why, in a few words."""


def reverse_diff(diff: str) -> str:
    """The diff that undoes ``diff``, as git writes it: in every run of changes removed lines come first.

    Raises:
        DiffError: binary changes, copies, no hunk, or hunks whose lines do not fit their heads.
    """
    lines, out = diff.split("\n"), []
    # What follows the last line end is no line.
    rest = [lines.pop()] if lines[-1] == "" else []
    at = hunks = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if hunk := _HUNK.match(line):
            old, new, heading = hunk.groups()
            body, at = _body(lines, at, *(int(span.partition(",")[2] or 1) for span in (old, new)))
            out += [f"@@ -{new} +{old} @@{heading}", *body]
            hunks += 1
        elif line.startswith(("GIT binary patch", "Binary files ", "copy from ")):
            raise DiffError("it changes more than lines of text")
        elif index := _INDEX.fullmatch(line):
            out.append(f"index {index[2]}..{index[1]}{index[3]}")
        elif files := _FILES.fullmatch(line):
            out.append(f"diff --git a/{files[2]} b/{files[1]}")
        else:
            start, turned = next((turn for turn in _TURNED if line.startswith(turn[0])), ("", ""))
            out.append(turned + line[len(start) :])
            if line.startswith(("rename to ", "new mode ", "+++ ")):
                out[-2:] = out[:-3:-1]
    if not hunks:
        raise DiffError("it has no hunk")
    return "\n".join([*out, *rest])


def _body(lines: list[str], at: int, old: int, new: int) -> tuple[list[str], int]:
    """The reversed body of a hunk of so many old and new lines that begins at a line, and where it ends."""
    out: list[str] = []
    removed: list[str] = []
    added: list[str] = []
    last = out
    while old or new or (lines[at : at + 1] and lines[at].startswith("\\")):
        line = lines[at] if at < len(lines) else "?"
        at += 1
        if line.startswith("\\"):
            last.append(line)  # it speaks of the line before it, wherever that goes
        elif line.startswith("-"):
            added.append("+" + line[1:])
            last, old = added, old - 1
        elif line.startswith("+"):
            removed.append("-" + line[1:])
            last, new = removed, new - 1
        elif line[:1] in (" ", ""):  # editors strip the blank of an empty line
            out += [*removed, *added, line]
            removed, added, last, old, new = [], [], out, old - 1, new - 1
        else:
            old = -1
        if min(old, new) < 0:
            raise DiffError("a hunk does not have the lines that its head says")
    return [*out, *removed, *added], at
