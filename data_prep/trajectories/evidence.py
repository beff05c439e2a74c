"""Finds the lines of a run that tell which patch it led to: the patched places as it saw them, tests that name them.

These lines must survive when a context is shortened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from data_prep.trajectories.leaks import MIN_CHARS, tight
from data_prep.trajectories.patch_lines import patch_lines
from data_prep.trajectories.placeholders import NUMBERING
from data_prep.trajectories.run import AgentRun, Message

LONGEST_BODY = 40
MOST_NAMING_LINES = 20

_FILE_NAME = re.compile(r"\.\w{1,5}$")
_TEST_SIGNS = ("Traceback", "Error", "FAIL", "failed", "passed", "assert", "\nOK")

Evidence = set[tuple[int, str]]


def evidence_lines(
    run: AgentRun | Sequence[Message], places: Iterable[str | Sequence[str]], patch: str | None = None
) -> Evidence:
    """The evidence as (message index, line without its line break).

    ``places`` are names of patched files (with a ``/`` or an ending) and of functions or classes (``Class.method`` is
    looked for as ``method``), one by one or as (file, symbol); ``patch`` is the run's own if not given. In what a
    command printed that names such a file, the evidence is the old lines of the patch and the body of each such
    function as far as 40 lines; in the output of tests, up to 20 lines that name one. Lines are told by their text, so
    the evidence of a run as recorded holds for the same run masked: a line that was masked is then simply not there.
    """
    messages = run.messages if isinstance(run, AgentRun) else run
    if patch is None:
        patch = run.patch if isinstance(run, AgentRun) else ""
    files, symbols = _sorted(name for place in places for name in ([place] if isinstance(place, str) else place))
    old = {form for line in patch_lines(patch).original if len(form := tight(line)) >= MIN_CHARS}
    named = re.compile(r"\b(?:" + "|".join(map(re.escape, symbols)) + r")\b") if symbols else None
    found: Evidence = set()
    command, issue_seen = "", False
    for index, message in enumerate(messages):
        if message.role == "assistant":
            command = message.content
            continue
        if message.role == "system" or not issue_seen:
            issue_seen |= message.role == "user"
            continue
        text = message.content
        view = any(name in command for name in files)
        naming = [symbol for symbol in symbols if symbol in text]
        if not (view and old) and not naming:
            continue
        lines = text.split("\n")
        numbers = set(_view_lines(lines, old, naming)) if view else set()
        if naming and named is not None and any(sign in text for sign in _TEST_SIGNS):
            numbers.update([number for number, line in enumerate(lines) if named.search(line)][-MOST_NAMING_LINES:])
        found |= {(index, lines[number]) for number in numbers if lines[number].strip()}
    return found


def _sorted(places: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names of files, without folders, and of symbols, without their class."""
    files: dict[str, None] = {}
    symbols: dict[str, None] = {}
    for place in places:
        if "/" in place or (_FILE_NAME.search(place) and not place[:1].isupper() and place.count(".") == 1):
            files[place.rsplit("/", 1)[-1]] = None
        elif place:
            symbols[place.rsplit(".", 1)[-1]] = None
    return list(files), list(symbols)


def _view_lines(lines: list[str], old: set[str], symbols: list[str]) -> Iterable[int]:
    """Lines of a view that are old lines of the patch or belong to a definition of a symbol."""
    for number, line in enumerate(lines):
        if old and len(line) < 1000 and (tight(line) in old or tight(line[NUMBERING.match(line).end() :]) in old):
            yield number
    for symbol in symbols:
        definition = re.compile(r"\b(?:def|class)\s+" + re.escape(symbol) + r"\b")
        for number, line in enumerate(lines):
            if symbol in line and definition.search(line):
                yield from _body(lines, number)


def _body(lines: list[str], start: int) -> Iterable[int]:
    """The definition's line and the lines under it that are indented more, as far as the limit."""
    depth = _depth(lines[start])
    yield start
    for number in range(start + 1, min(start + LONGEST_BODY, len(lines))):
        bare = lines[number][NUMBERING.match(lines[number]).end() :].strip()
        if bare and not bare.startswith(")") and _depth(lines[number]) <= depth:
            return
        yield number


def _depth(line: str) -> int:
    """Columns in front of the code, with what a viewer put there."""
    width = re.match(r"[ \t]*(?:\d+[:\t|-])?", line).end()
    rest = line[width:]
    before = len(line[:width].expandtabs()) if line[:width].isspace() else 0
    return before + len(rest) - len(rest.lstrip())
