"""Finds lines of a patch in a run's text, however they got there.

An added line counts as distinctive when it has at least 12 characters besides white space and is not old text: neither
the patch's own old lines, nor the issue, nor what the run saw before it first wrote something contains it, and it was
not printed before the first edit without the agent having written it. Text is compared
without white space, quotes and backslashes, so that printed diffs, numbered views, JSON strings and shell quoting all
look the same; an added line is found inside longer text as well.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from data_prep.trajectories.placeholders import NUMBERING, PATCH_MASKED
from data_prep.trajectories.run import Message

MIN_CHARS = 12
MIN_CANONICAL = 6
MIN_FRAGMENT = 16
LONGEST_LINE = 600

_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
_IGNORED = dict.fromkeys(map(ord, _SPACES + "\\'\"`"))
_IGNORED_IN_LINE = {code: None for code in _IGNORED if code != ord("\n")}
_KEPT = re.compile("[^" + re.escape("".join(map(chr, _IGNORED))) + "]+")
_QUOTED = re.compile(r"`([^`\n]{12,400})`")
_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.M | re.S)
_TAGS = ("<output>", "</output>", "```", PATCH_MASKED)
_EXPRESSION = re.compile(r"[^\w.\s]")
_FILES = re.compile(
    r"^--- (?:[ab]/)?([^\t\n]*).*\n\+\+\+ (?:[ab]/)?([^\t\n]*).*\n(?=@@ )"
    r"|^rename (?:to|from) (.*)|^diff --git a/(\S+) b/(\S+)",
    re.M,
)


class PatchLines(NamedTuple):
    """The paths on either side of a diff; its lines, without their first character, that were added, and that were in
    the files before. Read leniently: what a broken hunk still shows counts too."""

    files: list[str]
    added: list[str]
    original: list[str]


def patch_lines(patch: str) -> PatchLines:
    """Read a diff."""
    named = [path.strip() for found in _FILES.findall(patch) for path in found]
    lines = _FILES.sub("", patch).split("\n")
    return PatchLines(
        [path for path in dict.fromkeys(named) if path not in ("", "/dev/null")],
        [line[1:] for line in lines if line[:1] == "+"],
        [line[1:] for line in lines if line[:1] in ("-", " ")],
    )


class Leak(NamedTuple):
    """One place that shows a line of the patch: what to mask is ``messages[message].content[start:end]``."""

    message: int
    start: int
    end: int
    line: str
    whole_lines: bool = False


def tight(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())


def canonical(text: str) -> str:
    """The text without white space, quotes and backslashes."""
    return text.translate(_IGNORED)


class PatchNeedles(NamedTuple):
    """What of some patches must not show in a run.

    Attributes:
        needles: canonical form of each distinctive added line, and the line.
        lines: canonical form of every added line; these are masked only next to a needle.
        seen: tight text of everything that was there before the agent wrote anything.
    """

    needles: dict[str, str]
    lines: set[str]
    seen: str


def needles_of(
    messages: Sequence[Message], patches: Iterable[PatchLines], issue: str, written: int, edited: int
) -> PatchNeedles:
    """The needles of the patches in this run; ``written`` and ``edited`` are the turns of its first write and edit."""
    known = tight("\0".join([issue, *(turn.content for turn in messages[:written] if turn.role != "assistant")]))
    needles: dict[str, str] = {}
    lines: set[str] = set()
    for patch in patches:
        old = "\0".join({tight(line) for line in patch.original})
        for line in patch.added:
            bare, key = tight(line), canonical(line)
            lines.add(key)
            if len(bare) >= MIN_CHARS and bare not in old and bare not in known:
                needles.setdefault(key if len(key) >= MIN_CANONICAL else bare, line.strip())
    _drop_seen(messages[:edited], needles)
    return PatchNeedles(needles, lines - {""}, known)


def _drop_seen(messages: Sequence[Message], needles: dict[str, str]) -> None:
    """Drop the lines that the environment printed before the agent wrote them, in turns before the first edit.

    Output that shows a line of the agent's own proves nothing about the other lines in it. From a printed diff on
    nothing is proved, for something was edited by then, in whatever way.
    """
    waiting = {needle: tight(line) for needle, line in needles.items()}
    written: list[str] = []
    for turn in messages:
        if not waiting:
            return
        form = canonical(turn.content)
        shown = [needle for needle in waiting if needle in form]
        if turn.role == "assistant":
            written += shown
            waiting = {needle: bare for needle, bare in waiting.items() if needle not in shown}
        elif "diff --git " in turn.content or "\n+++ " in turn.content:
            return
        elif shown and not any(needle in form for needle in written):
            text = tight(turn.content)
            for needle in [needle for needle in shown if waiting[needle] in text]:
                del waiting[needle], needles[needle]


def leaks_of(messages: Sequence[Message], hidden: PatchNeedles, first: int) -> list[Leak]:
    """Every place of the run that shows a needle, in order; ``first`` is the turn of its first write."""
    leaks: list[Leak] = []
    for index, turn in enumerate(messages if hidden.needles else ()):
        agent = turn.role == "assistant"
        if index >= first or agent:
            leaks += [
                Leak(index, *_widened(turn.content, start, end, line, agent))
                for start, end, line in _hits(turn.content, hidden.needles)
            ]
        if agent:
            leaks += [Leak(index, *place) for place in _partial(turn.content, hidden)]
    return sorted(leaks)


def _hits(text: str, needles: dict[str, str]) -> Iterator[tuple[int, int, str]]:
    """Where the needles stand in the text: start, end, line."""
    form = canonical(text)
    present = [needle for needle in needles if needle in form]
    # Places of the kept pieces: in the canonical form and in the text.
    kept, origin, total = [], [], 0
    for match in _KEPT.finditer(text) if present else ():
        kept.append(total)
        origin.append(match.start())
        total += match.end() - match.start()

    def place(at: int) -> int:
        piece = bisect_right(kept, at) - 1
        return origin[piece] + at - kept[piece]

    for needle in present:
        at = form.find(needle)
        while at >= 0:
            yield place(at), place(at + len(needle) - 1) + 1, needles[needle]
            at = form.find(needle, at + len(needle))


def _widened(text: str, start: int, end: int, line: str, prose: bool) -> tuple[int, int, str, bool]:
    """The span, grown to whole lines where that costs little and takes no mark or tag, which must stay."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    before, after = text[line_start:start], text[end:line_end]
    beside = len(before[NUMBERING.match(before).end() :].strip()) + len(after.strip())
    whole = beside <= 4 or (not prose and line_end - line_start <= LONGEST_LINE + end - start)
    if whole and not any(tag in side for side in (before, after) for tag in _TAGS):
        return line_start, line_end, line, True
    return start, end, line, False


def _partial(text: str, hidden: PatchNeedles) -> Iterator[tuple[int, int, str]]:
    """Quoted code in the agent's own words, and lines of its code blocks, that are a good part of an added line."""
    fragments = "\0".join(hidden.needles)
    places = [match.span(1) for match in _QUOTED.finditer(text)] if "`" in text else []
    for block in _FENCED.finditer(text) if "```" in text else ():
        at = block.start(1)
        for line, form in zip(block[1].split("\n"), block[1].translate(_IGNORED_IN_LINE).split("\n"), strict=True):
            if len(form) >= MIN_FRAGMENT and form in fragments:
                start = at + len(line) - len(line.lstrip())
                places.append((start, start + len(line.strip())))
            at += len(line) + 1
    for start, end in places:
        piece = text[start:end]
        form = canonical(piece)
        if len(form) >= MIN_FRAGMENT and form in fragments and _EXPRESSION.search(piece):
            if tight(piece) not in hidden.seen:
                yield start, end, next(line for needle, line in hidden.needles.items() if form in needle)
