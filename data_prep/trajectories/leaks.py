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
from dataclasses import dataclass

from data_prep.trajectories.edits import edits_of, first_turn, writes_of
from data_prep.trajectories.patch_lines import PatchLines, patch_lines
from data_prep.trajectories.placeholders import NUMBERING, PATCH_MASKED
from data_prep.trajectories.run import Message

MIN_CHARS = 12
MIN_CANONICAL = 6
MIN_FRAGMENT = 16
LONGEST_LINE = 600

_SPACES = "".join(map(chr, filter(lambda code: chr(code).isspace(), range(0x3001))))
_IGNORED = _SPACES + "\\'\"`"
_IGNORED_BYTES = "".join(filter(str.isascii, _IGNORED)).encode()
_IGNORED_BYTES_IN_LINE = _IGNORED_BYTES.replace(b"\n", b"")
_IGNORED_TABLE = dict.fromkeys(map(ord, _IGNORED))
_KEPT = re.compile("[^" + re.escape(_IGNORED) + "]+")
_QUOTED = re.compile(r"`([^`\n]{12,400})`")
_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.M | re.S)
_EXPRESSION = re.compile(r"[^\w.\s]")


@dataclass(frozen=True, order=True)
class Leak:
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
    if text.isascii():
        return text.encode().translate(None, _IGNORED_BYTES).decode()
    return text.translate(_IGNORED_TABLE)


def canonical_lines(text: str) -> list[str]:
    """The canonical forms of the text's lines."""
    if text.isascii():
        return text.encode().translate(None, _IGNORED_BYTES_IN_LINE).decode().split("\n")
    return [canonical(line) for line in text.split("\n")]


@dataclass(frozen=True)
class PatchNeedles:
    """What of some patches must not show in a run.

    Attributes:
        needles: canonical form of each distinctive added line, and the line.
        lines: canonical form of every added line; these are masked only next to a needle.
        seen: tight text of everything that was there before the agent wrote anything.
    """

    needles: dict[str, str]
    lines: frozenset[str]
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
            bare = tight(line)
            key = canonical(bare)
            if key:
                lines.add(key)
            if len(bare) >= MIN_CHARS and bare not in old and bare not in known:
                needles.setdefault(key if len(key) >= MIN_CANONICAL else bare, line.strip())
    _drop_seen(messages[:edited], needles)
    return PatchNeedles(needles, frozenset(lines), known)


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
        if turn.role == "assistant":
            written += [needle for needle in waiting if needle in form]
            waiting = {needle: bare for needle, bare in waiting.items() if needle not in form}
            continue
        if "diff --git " in turn.content or "\n+++ " in turn.content:
            return
        printed = [needle for needle in waiting if needle in form]
        if printed and not any(needle in form for needle in written):
            text = tight(turn.content)
            for needle in printed:
                if waiting[needle] in text:
                    del waiting[needle], needles[needle]


def find_leaks(messages: Sequence[Message], patch: str | Sequence[str], issue: str = "") -> list[Leak]:
    """Every place of the run that shows a distinctive added line of the patch or patches, in order."""
    patches = [patch_lines(text) for text in ([patch] if isinstance(patch, str) else patch)]
    writes = writes_of(messages)
    first = first_turn(writes, messages)
    edits = edits_of(writes, [path for lines in patches for path in lines.files])
    return leaks_of(messages, needles_of(messages, patches, issue, first, first_turn(edits, messages)), first)


def leaks_of(messages: Sequence[Message], hidden: PatchNeedles, first: int) -> list[Leak]:
    """As `find_leaks`, with what is already known about the run."""
    if not hidden.needles:
        return []
    fragments = "\0".join(hidden.needles)
    leaks: list[Leak] = []
    for index, turn in enumerate(messages):
        agent = turn.role == "assistant"
        if index < first and not agent:
            continue
        for start, end, line in _hits(turn.content, hidden.needles):
            start, end, whole = _widened(turn.content, start, end, agent)
            leaks.append(Leak(index, start, end, line, whole))
        if agent:
            leaks += [Leak(index, *place) for place in _partial(turn.content, fragments, hidden)]
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


def _widened(text: str, start: int, end: int, prose: bool) -> tuple[int, int, bool]:
    """The span, grown to whole lines where that costs little."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    before, after = text[line_start:start], text[end:line_end]
    beside = len(before[NUMBERING.match(before).end() :].strip()) + len(after.strip())
    if beside <= 4 or (not prose and line_end - line_start <= LONGEST_LINE + end - start):
        if not _tag(before) and not _tag(after):
            return line_start, line_end, True
    return start, end, False


def _tag(text: str) -> bool:
    """Whether the rest of a line holds a mark or a tag such as ``<output>`` or a fence, which must stay."""
    return "<output>" in text or "</output>" in text or "```" in text or PATCH_MASKED in text


def _partial(text: str, fragments: str, hidden: PatchNeedles) -> list[tuple[int, int, str, bool]]:
    """Quoted code in the agent's own words, and lines of its code blocks, that are a good part of an added line."""
    places = [(match.start(1), match.end(1)) for match in _QUOTED.finditer(text)] if "`" in text else []
    for block in _FENCED.finditer(text) if "```" in text else ():
        at = block.start(1)
        forms = canonical_lines(block[1])
        for line, form in zip(block[1].split("\n"), forms, strict=True):
            if len(form) >= MIN_FRAGMENT and form in fragments:
                bare = line.strip()
                start = at + line.index(bare[0])
                places.append((start, start + len(bare)))
            at += len(line) + 1
    found = []
    for start, end in places:
        piece = text[start:end]
        form = canonical(piece)
        if len(form) >= MIN_FRAGMENT and form in fragments and _EXPRESSION.search(piece):
            if tight(piece) not in hidden.seen:
                owner = next(line for needle, line in hidden.needles.items() if form in needle)
                found.append((start, end, owner, False))
    return found
