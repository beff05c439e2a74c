"""Takes patches out of a run: the content of their edits, diffs, and every line of them that shows elsewhere.

An added line counts as distinctive when it has at least 12 characters besides white space and is not old text: neither
the patch's own old lines, nor the issue (its diffs apart), nor what the run saw before it first wrote something holds
it, and it was not printed before the first edit without the agent having written it. Text is compared without white
space, quotes and backslashes, so that printed diffs, numbered views, JSON strings and shell quoting all look the same;
an added line is found inside longer text as well.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from data_prep.trajectories.actions import Paths, Span, contents_of, disjoint, edits_of, writes_of
from data_prep.trajectories.diffs import (
    IGNORED,
    MIN_CHARS,
    PatchLines,
    canonical,
    diffs_in,
    headings_in,
    patch_lines,
    tails_in,
    tight,
)
from data_prep.trajectories.drafts import drafts_in
from data_prep.trajectories.run import NUMBERING, PATCH_MASKED, AgentRun, Message

_MIN_CANONICAL = 6
_MIN_FRAGMENT = 16
_LONGEST_LINE = 600

_IGNORED_IN_LINE = {code: None for code in IGNORED if code != ord("\n")}
_KEPT = re.compile("[^" + re.escape("".join(map(chr, IGNORED))) + "]+")
_QUOTED = re.compile(r"`([^`\n]{12,400})`")
_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.M | re.S)
_TAGS = ("<output>", "</output>", "```", PATCH_MASKED)
_EXPRESSION = re.compile(r"[^\w.\s]")
_SHOWS_DIFF = ("diff", "git stash show", "FINAL_OUTPUT", "submit")


class Masked(NamedTuple):
    """A run's turns without the patches; how many places showed an added line besides edits and diffs, and how many
    drafts of one; the places that show one all the same, none unless masking itself is wrong."""

    messages: tuple[Message, ...]
    leaked_lines_masked: int
    drafts: int
    left: list[_Leak]


class _Leak(NamedTuple):
    """A place that shows a line of the patch, and whether it consists of whole lines."""

    message: int
    start: int
    end: int
    whole_lines: bool


def unmaskable(run: AgentRun) -> str | None:
    """Why the run's patch cannot be hidden in it; None if it can.

    An edit that is not recognised would stay, with the old lines and the places that it names.
    """
    if run.patch.strip() and not edits_of(writes_of(run.messages), patch_lines(run.patch).files):
        return "no recognised write of a patched file"
    return None


def mask_run(run: AgentRun, *patches: str) -> Masked:
    """The run without the patches (its own alone if none is given).

    To compare two runs, give both runs' patches for each of them, so that what is masked does not tell them apart.
    """
    patches = patches or (run.patch,)
    parsed = [patch_lines(patch) for patch in patches]
    files = [path for patch in parsed for path in patch.files]
    writes = writes_of(run.messages)
    edits = edits_of(writes, files)
    hidden = _Needles(_without_diffs(run.issue, Paths(files)), parsed)
    # Where text of the agent's own enters the world: until then every view is original.
    first = min((turn for turn, _ in writes), default=len(run.messages))
    first = next((turn for turn in range(first) if hidden.spelt(run.messages[turn])), first)
    spans = [*contents_of(edits), *_diffs(run.messages, first, Paths(files))]
    own = {heading for patch in patches for *_, heading in headings_in(patch)}
    for index, turn in enumerate(run.messages):
        spans += [(index, start, end) for start, end, heading in headings_in(turn.content) if heading in own]
    # What is a mark already stays one.
    messages = _marked(
        run.messages,
        [
            span
            for span in disjoint(spans)
            if run.messages[span[0]].content[slice(*span[1:])].replace(PATCH_MASKED, "").strip()
        ],
    )
    hidden.forget_seen(messages[:first])
    hidden.forget_printed(run.messages[: min((turn for turn, _ in edits), default=len(messages))])
    leaks = hidden.leaks(messages, first)
    messages = _marked(messages, _joined(messages, [hidden.grown(messages, leak) for leak in leaks]))
    drafts, turns = 0, range(len(messages))
    while found := drafts_in(messages, parsed, turns):
        drafts += len(found)
        messages, turns = _marked(messages, found), {index for index, *_ in found}
    return Masked(messages, len(leaks), drafts, hidden.leaks(messages, first))


def _without_diffs(text: str, files: Paths) -> str:
    """The text of an issue without the diffs that are hidden in it."""
    for found in reversed([*diffs_in(text)]):
        if not found.files or any(path in files for path in found.files):
            text = text[: found.start] + text[found.end :]
    return text


def _diffs(messages: Sequence[Message], first: int, files: Paths) -> Iterator[Span]:
    """Diffs of the files wherever they stand; hunks without a file in the agent's words and in front of them; any diff
    that the environment printed after the first write, when the turn before asked for one."""
    asked, answers = False, 0
    for index, message in enumerate(messages):
        agent = message.role == "assistant"
        if agent:
            asked = any(sign in message.content for sign in _SHOWS_DIFF)
        answers += agent
        printed = not agent and index > first and (asked or index == len(messages) - 1)
        for found in diffs_in(message.content):
            named = any(path in files for path in found.files)
            if named or printed or (not found.files and (agent or not answers)):
                yield index, found.start, found.end
        yield from ((index, *at) for at in (tails_in(message.content) if printed else ()))


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


class _Needles:
    """What of some patches must not show in a run: their distinctive added lines, less those that are old text, which
    :meth:`forget_seen` and :meth:`forget_printed` take away."""

    def __init__(self, issue: str, patches: Sequence[PatchLines]) -> None:
        self.seen = tight(issue)
        # Each distinctive added line by its canonical form; the text of it without white space.
        self.needles: dict[str, str] = {}
        # Canonical forms of all added lines, and of the removed ones; they are masked only next to a needle.
        self.lines: set[str] = set()
        self.removed = {canonical(line) for patch in patches for line in patch.removed if len(tight(line)) >= MIN_CHARS}
        for patch in patches:
            old = "\0".join({tight(line) for line in patch.original})
            for line in patch.added:
                bare, key = tight(line), canonical(line)
                if key:
                    self.lines.add(key)
                if len(bare) >= MIN_CHARS and bare not in old and bare not in self.seen:
                    self.needles.setdefault(key if len(key) >= _MIN_CANONICAL else bare, bare)

    def spelt(self, turn: Message) -> bool:
        """Whether the agent writes one of the lines in this turn: it may be an edit of a form that is not known."""
        form = canonical(turn.content) if turn.role == "assistant" else ""
        return any(needle in form for needle in self.needles)

    def forget_seen(self, messages: Sequence[Message]) -> None:
        """Drop the lines that the run saw in turns before the agent wrote anything."""
        self.seen = tight("\0".join([self.seen, *(turn.content for turn in messages if turn.role != "assistant")]))
        self.needles = {needle: bare for needle, bare in self.needles.items() if bare not in self.seen}

    def forget_printed(self, messages: Sequence[Message]) -> None:
        """Drop the lines that the environment printed before the agent wrote them, in turns before the first edit.

        Output that shows a line of the agent's own proves nothing about the other lines in it. From a printed diff on
        nothing is proved, for something was edited by then, in whatever way.
        """
        waiting = dict(self.needles)
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
                    del waiting[needle], self.needles[needle]

    def leaks(self, messages: Sequence[Message], first: int) -> list[_Leak]:
        """Every place of the run that shows a needle, in order; ``first`` is the turn of its first write."""
        leaks: list[_Leak] = []
        for index, turn in enumerate(messages if self.needles else ()):
            agent, text = turn.role == "assistant", turn.content
            hits = [*self._hits(text, self.needles)] if agent or index >= first else []
            parts = [*self._partial(text)] if agent else []
            if agent and (hits or parts):
                # What it replaces a line by, an agent says next to the line.
                hits += self._hits(text, self.removed)
            leaks += [_Leak(index, *_widened(text, *hit, agent)) for hit in hits]
            leaks += [_Leak(index, *place, False) for place in parts]
        return sorted(leaks)

    def _hits(self, text: str, needles: Iterable[str]) -> Iterator[tuple[int, int]]:
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
                yield place(at), place(at + len(needle) - 1) + 1
                at = form.find(needle, at + len(needle))

    def _partial(self, text: str) -> Iterator[tuple[int, int]]:
        """Quoted code in the agent's own words, and lines of its code blocks, that are a good part of an added line."""
        fragments = "\0".join(self.needles)
        places = [match.span(1) for match in _QUOTED.finditer(text)] if "`" in text else []
        for block in _FENCED.finditer(text) if "```" in text else ():
            at = block.start(1)
            for line, form in zip(block[1].split("\n"), block[1].translate(_IGNORED_IN_LINE).split("\n"), strict=True):
                if len(form) >= _MIN_FRAGMENT and form in fragments:
                    start = at + len(line) - len(line.lstrip())
                    places.append((start, start + len(line.strip())))
                at += len(line) + 1
        for start, end in places:
            piece = text[start:end]
            form = canonical(piece)
            if len(form) >= _MIN_FRAGMENT and form in fragments and _EXPRESSION.search(piece):
                if tight(piece) not in self.seen:
                    yield start, end

    def grown(self, messages: Sequence[Message], leak: _Leak) -> Span:
        """A whole-line leak grown over neighbouring lines that are added lines too, however short."""
        text, start, end = messages[leak.message].content, leak.start, leak.end

        def is_added(line: str) -> bool:
            return len(line) < 200 and canonical(line[NUMBERING.match(line).end() :]) in self.lines

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


def _widened(text: str, start: int, end: int, prose: bool) -> tuple[int, int, bool]:
    """The span, grown to whole lines where that costs little and takes no mark or tag, which must stay."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    before, after = text[line_start:start], text[end:line_end]
    beside = len(before[NUMBERING.match(before).end() :].strip()) + len(after.strip())
    whole = beside <= 4 or (not prose and line_end - line_start <= _LONGEST_LINE + end - start)
    if whole and not any(tag in side for side in (before, after) for tag in _TAGS):
        return line_start, line_end, True
    return start, end, False
