"""Finds the lines of a run that tell which patch it led to: the patched places as it saw them, tests that name them.

These lines must survive when a context is shortened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from data_prep.trajectories.leaks import MIN_CHARS, patch_lines, tight
from data_prep.trajectories.placeholders import NUMBERING
from data_prep.trajectories.run import Message

LONGEST_BODY = 40
MOST_NAMING_LINES = 20

_TEST_SIGNS = ("Traceback", "Error", "FAIL", "failed", "passed", "assert", "\nOK")


def evidence_lines(
    messages: Sequence[Message], places: Iterable[tuple[str, str]], patches: Iterable[str]
) -> set[tuple[int, str]]:
    """The evidence as (message index, line without its line break).

    ``places`` are patched files, each with a function or class (``Class.method`` is looked for as ``method``) or an
    empty name. In what a command printed that names such a file, the evidence is the old lines of the patches and the
    body of each such function as far as 40 lines; in the output of tests, up to 20 lines that name one.
    """
    places = list(places)
    files = {file.rsplit("/", 1)[-1] for file, _ in places}
    symbols = {symbol.rsplit(".", 1)[-1] for _, symbol in places if symbol}
    lines_of = (line for patch in patches for line in patch_lines(patch).original)
    old = {form for line in lines_of if len(form := tight(line)) >= MIN_CHARS}
    named = re.compile(r"\b(?:" + "|".join(map(re.escape, symbols)) + r")\b")
    found: set[tuple[int, str]] = set()
    command, issue_seen = "", False
    for index, message in enumerate(messages):
        text = message.content
        if message.role == "assistant":
            command = text
        elif message.role == "system" or not issue_seen:
            issue_seen |= message.role == "user"
        else:
            lines, numbers = text.split("\n"), set()
            naming = [symbol for symbol in symbols if symbol in text]
            if any(name in command for name in files):
                numbers.update(_view_lines(lines, old, naming))
            if naming and any(sign in text for sign in _TEST_SIGNS):
                numbers.update([number for number, line in enumerate(lines) if named.search(line)][-MOST_NAMING_LINES:])
            found |= {(index, lines[number]) for number in numbers if lines[number].strip()}
    return found


def _view_lines(lines: list[str], old: set[str], symbols: list[str]) -> Iterator[int]:
    """Lines of a view that are old lines of the patch or belong to a definition of a symbol."""
    for number, line in enumerate(lines):
        if old and len(line) < 1000 and (tight(line) in old or tight(line[NUMBERING.match(line).end() :]) in old):
            yield number
    for symbol in symbols:
        definition = re.compile(r"\b(?:def|class)\s+" + re.escape(symbol) + r"\b")
        for number, line in enumerate(lines):
            if symbol in line and definition.search(line):
                yield from _body(lines, number)


def _body(lines: list[str], start: int) -> Iterator[int]:
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
