"""Takes a patch out of a run: the content of its edits, printed diffs, and every line of it that shows elsewhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from data_prep.trajectories.edits import Edit, contents_of, edits_of, first_turn, writes_of
from data_prep.trajectories.leaks import Leak, PatchNeedles, canonical, leaks_of, needles_of
from data_prep.trajectories.patch_lines import patch_lines
from data_prep.trajectories.placeholders import NUMBERING, PATCH_MASKED
from data_prep.trajectories.run import AgentRun, Message

_SHOWS_DIFF = ("diff", "git stash show", "FINAL_OUTPUT", "submit")
_DIFF_START = re.compile(r"^(?:diff --git |diff -[a-zA-Z]+ |--- (?=[^\n]*\n\+\+\+ ))", re.M)
_DIFF_LINE = ("+", "-", " ", "@@", "\\", "diff ", "index ", "new file", "deleted file", "old mode", "new mode")
_DIFF_LINES = (*_DIFF_LINE, "similarity ", "rename ", "copy ", "Binary ", "GIT binary")


@dataclass(frozen=True)
class Masked:
    """A run's turns without the patches.

    Attributes:
        messages: as many turns as the run has, in its order.
        masked_spans: how many pieces were masked, by kind of edit; ``diff`` for printed diffs.
        leaked_lines_masked: places that showed an added line besides the edits and diffs.
        first_write: turn of the run's first write; views before it are untouched.
        left: places that show an added line all the same; none, unless masking itself is wrong.
    """

    messages: tuple[Message, ...]
    masked_spans: Counter[str] = field(default_factory=Counter)
    leaked_lines_masked: int = 0
    first_write: int = 0
    left: tuple[Leak, ...] = ()


def mask_run(run: AgentRun, *patches: str) -> Masked:
    """The run without the patches (its own alone if none is given).

    To compare two runs, give both runs' patches for each of them, so that what is masked does not tell them apart.
    """
    parsed = [patch_lines(patch) for patch in patches or (run.patch,)]
    files = dict.fromkeys(path for patch in parsed for path in patch.files)
    writes = writes_of(run.messages)
    first = first_turn(writes, run.messages)
    edits = edits_of(writes, files)
    counts: Counter[str] = Counter()
    messages = _replaced(run.messages, contents_of(edits) + _printed_diffs(run.messages, first), counts)
    hidden = needles_of(run.messages, parsed, run.issue, first, first_turn(edits, run.messages))
    leaks = leaks_of(messages, hidden, first)
    messages = _without(messages, leaks, hidden)
    return Masked(messages, counts, len(leaks), first, tuple(leaks_of(messages, hidden, first)))


def _printed_diffs(messages: Sequence[Message], first: int) -> list[Edit]:
    """Diffs in what the environment printed after the first write, when the turn before asked for one."""
    found = []
    asked = False
    for index, message in enumerate(messages):
        if message.role == "assistant":
            asked = any(sign in message.content for sign in _SHOWS_DIFF)
            continue
        if index <= first or not (asked or index == len(messages) - 1):
            continue
        text = message.content
        if "diff " not in text and "\n+++ " not in text:
            continue
        position = 0
        while (start := _DIFF_START.search(text, position)) is not None:
            position = _diff_end(text, start.end())
            found.append(Edit(index, start.start(), position, "diff"))
    return found


def _diff_end(text: str, position: int) -> int:
    """The end of the diff's last line."""
    end = text.find("\n", position)
    end = len(text) if end < 0 else end
    while end < len(text):
        stop = text.find("\n", end + 1)
        stop = len(text) if stop < 0 else stop
        line = text[end + 1 : stop]
        if not line.startswith(_DIFF_LINES):
            following = text[stop + 1 : stop + 3]
            if line or not following.startswith(("+", "-", " ", "@", "di")):
                break
        end = stop
    return end


def _replaced(messages: Sequence[Message], spans: Iterable[Edit], counts: Counter[str]) -> tuple[Message, ...]:
    """The turns with a mark for every span; a span that is a mark already stays one and is not counted."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for span in sorted(spans):
        places = wanted.setdefault(span.message, [])
        content = messages[span.message].content[span.start : span.end].strip()
        if content and content != PATCH_MASKED and (not places or span.start >= places[-1][1]):
            places.append((span.start, span.end))
            counts[span.kind] += 1
    return _marked(messages, wanted)


def _without(messages: tuple[Message, ...], leaks: list[Leak], hidden: PatchNeedles) -> tuple[Message, ...]:
    """The turns with a mark for every leak; leaks in lines that follow each other share one."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for leak in leaks:
        text = messages[leak.message].content
        span = leak.start, leak.end
        wanted.setdefault(leak.message, []).append(_grown(text, *span, hidden.lines) if leak.whole_lines else span)
    return _marked(messages, {index: _joined(spans, messages[index].content) for index, spans in wanted.items()})


def _marked(messages: Sequence[Message], wanted: Mapping[int, list[tuple[int, int]]]) -> tuple[Message, ...]:
    """The turns with a mark in place of each span; spans are in order and apart."""
    result = list(messages)
    for index, spans in wanted.items():
        text, position, pieces = messages[index].content, 0, []
        for start, end in spans:
            pieces += [text[position:start], PATCH_MASKED]
            position = end
        result[index] = Message(role=messages[index].role, content="".join([*pieces, text[position:]]))
    return tuple(result)


def _grown(text: str, start: int, end: int, lines: frozenset[str]) -> tuple[int, int]:
    """A whole-line span grown over neighbouring lines that are added lines too, however short."""
    while start > 0:
        before = text.rfind("\n", 0, start - 1) + 1
        if not _is_added(text[before : start - 1], lines):
            break
        start = before
    while end < len(text):
        after = text.find("\n", end + 1)
        after = len(text) if after < 0 else after
        if not _is_added(text[end + 1 : after], lines):
            break
        end = after
    return start, end


def _is_added(line: str, lines: frozenset[str]) -> bool:
    return len(line) < 200 and canonical(line[NUMBERING.match(line).end() :]) in lines


def _joined(spans: list[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Spans in order; those that overlap or have only white space and line numbers between them become one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined:
            between = text[joined[-1][1] : start]
            if start < joined[-1][1] or ("\n" in between and NUMBERING.fullmatch(between.replace("\n", ""))):
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
                continue
        joined.append((start, end))
    return joined
