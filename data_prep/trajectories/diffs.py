"""Diffs: the lines of one, and where they stand in a text, with headers or without, in a fence, indented or cut off."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from contextrl_verl.agents.path_policy import unquoted
from data_prep.trajectories.run import PATCH_MASKED
from data_prep.trajectories.writes import diff_targets

MIN_CHARS = 12
_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
IGNORED = dict.fromkeys(map(ord, _SPACES + "\\'\"`"))

_FILES = re.compile(
    r"^--- (?:[ab]/)?([^\t\n]*).*\n\+\+\+ (?:[ab]/)?([^\t\n]*).*\n(?=@@ )"
    r"|^rename (?:to|from) (.*)|^diff --git a/(\S+) b/(\S+)",
    re.M,
)
_HEADING = re.compile(r"index [0-9a-f]{7,}\.\.[0-9a-f]{7,}|@@ -\d\S* \+\d\S* @@")
_SIGNS = ("+++ ", "@@ -", "diff --git ", "```diff", "```patch")
_LINE = (
    r"(?:[-+ \\]|@@|diff |index |Index: |====|(?:new|deleted) file|(?:old|new) mode|similarity |rename |copy |Binary "
    r"|GIT binary)"
)
# In front of a line: indentation, a sign of quotation, a viewer's number.
_SAME = r"(?:(?P=in)|[ \t]*\d+\t)"
# Empty lines are lines of the diff where one with a sign follows.
_DIFF = re.compile(
    r"^(?P<in>[ \t]*(?:> ?|\d+\t)?)"
    rf"(?:diff --git |(?:diff -[a-zA-Z]+ |Index: |--- )(?=[^\n]*\n{_SAME}(?:---|\+\+\+|===))|@@ -\d\S* \+\d)"
    rf"[^\n]*(?:\n{_SAME}{_LINE}[^\n]*|(?:\n[ \t]*){{1,3}}(?=\n{_SAME}(?:[-+ @]|di)))*"
    r"|^[ \t]*```[ \t]*(?:diff|patch)\b[^\n]*\n(?P<fence>.*?)(?:^[ \t]*```|\Z)",
    re.M | re.S,
)
_BREAK_IN_JSON = re.compile(r"(?<!\\)\\n")
# The rest of one whose middle a harness left out.
_TAIL = re.compile(rf"<output_tail>\n(?P<rest>[^\n]*(?:\n{_LINE}[^\n]*)+)")
_REST = re.compile(rf"(?:(?!\\n|</|{re.escape(PATCH_MASKED)})[^\n]){{0,200}}")
_RULER = re.compile(r"^[-+=]{4}", re.M)


class PatchLines(NamedTuple):
    """The paths on either side of a diff; its lines, without their first character, that were added, that were in the
    files before, and those of them that were removed. Read leniently: what a broken hunk still shows counts too."""

    files: list[str]
    added: list[str]
    original: list[str]
    removed: list[str]


def patch_lines(patch: str) -> PatchLines:
    """Read a diff."""
    named = [unquoted(path.strip(), "replace") for found in _FILES.findall(patch) for path in found]
    lines = _FILES.sub("", patch).split("\n")
    return PatchLines(
        [path for path in dict.fromkeys(named) if path not in ("", "/dev/null")],
        *([line[1:] for line in lines if line[:1] in signs] for signs in (("+",), ("-", " "), ("-",))),
    )


def tight(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())


def canonical(text: str) -> str:
    """The text without white space, quotes and backslashes."""
    return text.translate(IGNORED)


class Diff(NamedTuple):
    """Where a diff stands in a text, and the files that it names."""

    start: int
    end: int
    files: list[str]


def diffs_in(text: str) -> Iterator[Diff]:
    """Every diff and every hunk by itself, also inside a string of JSON."""
    forms = [text] if any(sign in text for sign in _SIGNS) else []
    if forms and "\\n@@ -" in text:
        forms.append(_BREAK_IN_JSON.sub("\r\n", text))  # places stay as they are
    for form in forms:
        for match in _DIFF.finditer(form):
            start, end = match.span("fence" if match["fence"] is not None else 0)
            found = form[start:end].rstrip()
            if found not in ("", PATCH_MASKED):
                yield Diff(start, start + len(found), diff_targets(found))


def tails_in(text: str) -> Iterator[tuple[int, int]]:
    """What may be the rest of a diff, behind the part that a harness left out of an output."""
    for match in _TAIL.finditer(text) if "<output_tail>" in text else ():
        if re.search(r"^[-+]", match["rest"], re.M) and not _RULER.search(match["rest"]):
            yield match.span("rest")


def headings_in(text: str) -> Iterator[tuple[int, int, str]]:
    """Where names of blobs and places of hunks show, with what a hunk's says of the function around it, and which."""
    for match in _HEADING.finditer(text):
        yield match.start(), _REST.match(text, match.end()).end(), match[0]
