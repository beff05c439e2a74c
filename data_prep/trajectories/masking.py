"""Takes a patch out of a run: the content of its edits, printed diffs, and every line of it that shows elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from data_prep.trajectories.edits import Span, contents_of, edits_of, first_turn, writes_of
from data_prep.trajectories.leaks import Leak, PatchNeedles, canonical, leaks_of, needles_of, patch_lines
from data_prep.trajectories.placeholders import NUMBERING, PATCH_MASKED
from data_prep.trajectories.run import AgentRun, Message

_SHOWS_DIFF = ("diff", "git stash show", "FINAL_OUTPUT", "submit")
_DIFF_LINE = (
    r"(?:[-+ \\]|@@|diff |index |(?:new|deleted) file|(?:old|new) mode|similarity |rename |copy |Binary |GIT binary)"
)
# An empty line is a line of the diff where one with a sign follows.
_DIFF = re.compile(
    r"^(?:diff --git |diff -[a-zA-Z]+ |--- (?=[^\n]*\n\+\+\+ ))[^\n]*"
    rf"(?:\n{_DIFF_LINE}[^\n]*|\n(?=\n(?:[-+ @]|di)))*",
    re.M,
)


class Masked(NamedTuple):
    """A run's turns without the patches.

    Attributes:
        messages: as many turns as the run has, in its order.
        masked_spans: how many pieces were masked as the content of edits or as printed diffs.
        leaked_lines_masked: places that showed an added line besides the edits and diffs.
        first_write: turn of the run's first write; views before it are untouched.
        left: places that show an added line all the same; none, unless masking itself is wrong.
    """

    messages: tuple[Message, ...]
    masked_spans: int
    leaked_lines_masked: int
    first_write: int
    left: tuple[Leak, ...]


def mask_run(run: AgentRun, *patches: str) -> Masked:
    """The run without the patches (its own alone if none is given).

    To compare two runs, give both runs' patches for each of them, so that what is masked does not tell them apart.
    """
    parsed = [patch_lines(patch) for patch in patches or (run.patch,)]
    writes = writes_of(run.messages)
    first = first_turn(writes, run.messages)
    edits = edits_of(writes, [path for patch in parsed for path in patch.files])
    spans = [*contents_of(edits), *_printed_diffs(run.messages, first)]
    # What is a mark already stays one and is not counted.
    spans = [
        (index, start, end)
        for index, start, end in spans
        if run.messages[index].content[start:end].strip() not in ("", PATCH_MASKED)
    ]
    messages = _marked(run.messages, spans)
    hidden = needles_of(run.messages, parsed, run.issue, first, first_turn(edits, run.messages))
    leaks = leaks_of(messages, hidden, first)
    messages = _marked(messages, _joined(messages, [_grown(messages, leak, hidden) for leak in leaks]))
    return Masked(messages, len(spans), len(leaks), first, tuple(leaks_of(messages, hidden, first)))


def _printed_diffs(messages: Sequence[Message], first: int) -> Iterator[Span]:
    """Diffs in what the environment printed after the first write, when the turn before asked for one."""
    asked = False
    for index, message in enumerate(messages):
        if message.role == "assistant":
            asked = any(sign in message.content for sign in _SHOWS_DIFF)
        elif index > first and (asked or index == len(messages) - 1):
            yield from ((index, *match.span()) for match in _DIFF.finditer(message.content))


def _marked(messages: Sequence[Message], spans: Sequence[Span]) -> tuple[Message, ...]:
    """The turns with a mark in place of each span; spans are apart."""
    result = list(messages)
    for index, group in groupby(sorted(spans), itemgetter(0)):
        text, position, pieces = messages[index].content, 0, []
        for _, start, end in group:
            pieces += [text[position:start], PATCH_MASKED]
            position = end
        result[index] = Message(role=messages[index].role, content="".join([*pieces, text[position:]]))
    return tuple(result)


def _grown(messages: Sequence[Message], leak: Leak, hidden: PatchNeedles) -> Span:
    """A whole-line leak grown over neighbouring lines that are added lines too, however short."""
    text, start, end = messages[leak.message].content, leak.start, leak.end

    def is_added(line: str) -> bool:
        return len(line) < 200 and canonical(line[NUMBERING.match(line).end() :]) in hidden.lines

    while leak.whole_lines and start > 0:
        before = text.rfind("\n", 0, start - 1) + 1
        if not is_added(text[before : start - 1]):
            break
        start = before
    while leak.whole_lines and end < len(text):
        after = text.find("\n", end + 1)
        after = len(text) if after < 0 else after
        if not is_added(text[end + 1 : after]):
            break
        end = after
    return leak.message, start, end


def _joined(messages: Sequence[Message], spans: Sequence[Span]) -> list[Span]:
    """Spans in order; those that overlap or have only white space and line numbers between them become one."""
    joined: list[Span] = []
    for index, start, end in sorted(spans):
        if joined and joined[-1][0] == index:
            between = messages[index].content[joined[-1][2] : start]
            if start < joined[-1][2] or ("\n" in between and NUMBERING.fullmatch(between.replace("\n", ""))):
                joined[-1] = (index, joined[-1][1], max(end, joined[-1][2]))
                continue
        joined.append((index, start, end))
    return joined
