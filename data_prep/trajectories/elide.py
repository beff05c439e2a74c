"""Shortens a run's turns to a number of tokens, with a mark for whatever is left out, and never within the issue or
the evidence: the lines that tell which patch the run led to, each of them once.

First the longest observations are cut to a common length, each keeping as many tokens of its head as of its tail; then
the agent's longest turns. If that is not enough, turns are left out, those around the first edit last. Every line is
tokenised once; all planning is arithmetic on the counts.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any

from contextrl_verl.errors import ConfigError
from data_prep.trajectories.diffs import MIN_CHARS, patch_lines, tight
from data_prep.trajectories.run import NUMBERING, Message

TokenCount = Callable[[Sequence[str]], list[int]]

SHORTEST_TURN = 160
# Of the agent's turns at most two before or behind the first edit.
SHORTEST_NEAR_EDIT = 640
LONGEST_BODY = 40
MOST_NAMING_LINES = 20
_ROUNDS = 8
# About the pieces that encodings with a large vocabulary make of code and English: a word's start with the sign or
# blank before it, its further parts, single digits, signs by two, blanks together.
_PIECES = re.compile(r"[\t -/:-@\[-`{-~]?[A-Za-z]{1,7}|\d| ?[!-/:-@\[-`{-~]{1,2}|\s+|[^\s!-~]")
_TEST_SIGNS = ("Traceback", "Error", "FAIL", "failed", "passed", "assert", "\nOK")


def rough_count(texts: Sequence[str]) -> list[int]:
    """About the tokens of each text, without a tokenizer: of agents' runs 2 to 11 % more than Qwen's tokenizer makes,
    4 % fewer to 8 % more than Mistral's Tekken; a vocabulary of 49,000 (SmolLM2) makes 5 to 18 % more."""
    return [len(_PIECES.findall(text)) for text in texts]


def token_counter(tokenizer: Any = "") -> TokenCount:
    """A function that counts the tokens of each of several texts, without special tokens.

    ``tokenizer`` is a Hugging Face tokenizer, its name or its folder; empty for :func:`rough_count`.

    Raises:
        ConfigError: it cannot be loaded.
    """
    if tokenizer == "":
        return rough_count
    if isinstance(tokenizer, str):
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"tokenizer {tokenizer!r} cannot be loaded ({str(error).splitlines()[0]}). Fix: a model's name, a "
                "folder with a tokenizer.json; leave it empty to count approximately."
            ) from error
    return lambda texts: [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def evidence_lines(
    messages: Sequence[Message], places: Iterable[tuple[str, str]], patches: Iterable[str], issue: int | None = None
) -> list[tuple[int, int]]:
    """The evidence as (message index, line number), each line once, where it shows first.

    ``places`` are patched files, each with a function or class (``Class.method`` is looked for as ``method``) or an
    empty name; ``issue`` is the turn of the issue. In what a command printed that names such a file, the evidence is
    the old lines of the patches and the body of each such function as far as 40 lines; in the output of tests, up to 20
    lines that name one.
    """
    places = list(places)
    files = {file.rsplit("/", 1)[-1] for file, _ in places}
    symbols = sorted({symbol.rsplit(".", 1)[-1] for _, symbol in places if symbol})
    lines_of = (line for patch in patches for line in patch_lines(patch).original)
    old = {form for line in lines_of if len(form := tight(line)) >= MIN_CHARS}
    named = re.compile(r"\b(?:" + "|".join(map(re.escape, symbols)) + r")\b")
    found: list[tuple[int, int]] = []
    shown: set[str] = set()
    command = ""
    for index, message in enumerate(messages):
        text = message.content
        if message.role == "assistant":
            command = text
        elif index != issue and message.role != "system":
            lines, numbers = text.split("\n"), set()
            naming = [symbol for symbol in symbols if symbol in text]
            if any(name in command for name in files):
                numbers.update(_view_lines(lines, old, naming))
            if naming and any(sign in text for sign in _TEST_SIGNS):
                numbers.update([number for number, line in enumerate(lines) if named.search(line)][-MOST_NAMING_LINES:])
            for number in sorted(numbers):
                if (form := _unnumbered(lines[number]).strip()) and form not in shown:
                    shown.add(form)
                    found.append((index, number))
    return found


def _view_lines(lines: list[str], old: set[str], symbols: list[str]) -> Iterator[int]:
    """Lines of a view that are old lines of the patch or belong to a definition of a symbol."""
    for number, line in enumerate(lines):
        if old and len(line) < 1000 and (tight(line) in old or tight(_unnumbered(line)) in old):
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
        bare = _unnumbered(lines[number]).strip()
        if bare and not bare.startswith(")") and _depth(lines[number]) <= depth:
            return
        yield number


def _unnumbered(line: str) -> str:
    return line[NUMBERING.match(line).end() :]


def _depth(line: str) -> int:
    """Columns in front of the code, with what a viewer put there."""
    width = re.match(r"[ \t]*(?:\d+[:\t|-])?", line).end()
    rest = line[width:]
    before = len(line[:width].expandtabs()) if line[:width].isspace() else 0
    return before + len(rest) - len(rest.lstrip())


class _Turn:
    """One turn's lines, their tokens summed up, and which of them are evidence.

    ``room`` is always the tokens that the turn may have; with no room at all only evidence is left of it.
    """

    def __init__(self, message: Message, lengths: list[int], evidence: list[int], mark: int) -> None:
        self.message, self.mark, self.evidence = message, mark, evidence
        self.lines = message.content.split("\n")
        self.sums = [0, *accumulate(lengths)]
        self.total = self.sums[-1]
        # Besides the evidence and the marks around it.
        self.fixed = sum(lengths[number] for number in evidence) + mark * (len(evidence) + 1)

    def gaps(self, room: int) -> list[tuple[int, int]]:
        """Spans of lines to leave out so that the turn has about so many tokens; none is shorter than a mark."""
        if self.total <= room:
            return []
        head, tail = 0, len(self.lines)
        if (half := (room - self.fixed) // 2) > 0:
            head = bisect_right(self.sums, half) - 1
            tail = max(head, bisect_left(self.sums, self.total - half))
        gaps, start = [], head
        for number in [*self.evidence[bisect_left(self.evidence, head) : bisect_left(self.evidence, tail)], tail]:
            if number > start and self.sums[number] - self.sums[start] > self.mark:
                gaps.append((start, number))
            start = number + 1
        return gaps

    def cost(self, room: int) -> int:
        """Tokens of the turn with these gaps."""
        return self.total + sum(self.mark - self.sums[end] + self.sums[start] for start, end in self.gaps(room))

    def shown(self, room: int) -> Message:
        """The turn with a mark for each gap."""
        pieces: list[str] = []
        position = 0
        for start, end in self.gaps(room):
            pieces += [*self.lines[position:start], _elided(self.sums[end] - self.sums[start])]
            position = end
        return Message(role=self.message.role, content="\n".join([*pieces, *self.lines[position:]]))


def _elided(tokens: int) -> str:
    return f"<ELIDED {tokens} tokens>"


def elide(
    messages: Sequence[Message],
    budget: int,
    evidence: Iterable[tuple[int, int]] = (),
    count: TokenCount = rough_count,
    *,
    per_message: int = 0,
    issue: int | None = None,
    edit: int | None = None,
) -> tuple[Message, ...] | None:
    """The turns within ``budget`` tokens (``per_message`` more for each turn, for what a prompt puts around it).

    ``evidence`` holds (message index, line number) as `evidence_lines` gives them; ``issue`` and ``edit`` are the turns
    of the issue, which stays whole, and of the first edit. None when issue and evidence with its marks do not fit.
    """

    def tokens(shown: Sequence[Message]) -> int:
        return sum(count([message.content for message in shown])) + per_message * len(shown)

    if tokens(messages) <= budget:
        return tuple(messages)
    mark = count([_elided(10**8) + "\n"])[0] + 1
    wanted: dict[int, list[int]] = defaultdict(list)
    for index, number in sorted(set(evidence)):
        wanted[index].append(number)
    lines = [message.content.split("\n") for message in messages]
    lengths = iter(count([line + "\n" for group in lines for line in group]))
    turns = [
        _Turn(message, [next(lengths) for _ in group], wanted[index], mark)
        for index, (message, group) in enumerate(zip(messages, lines, strict=True))
    ]
    aim = budget
    for _ in range(_ROUNDS):
        rooms = _rooms(turns, aim, per_message, mark, issue, edit)
        if rooms is None:
            return None
        shown: list[Message] = []
        for gone, row in _rows(turns, rooms):
            if gone:
                shown.append(Message(role="user", content=_elided(sum(turn.total for turn, _ in row))))
            else:
                shown += [turn.shown(room) for turn, room in row]
        over = tokens(shown) - budget
        if over <= 0:
            return tuple(shown)
        # Pieces joined to one text can take more tokens than apart; such a tokenizer gets a lower aim.
        aim -= over + 1
    return None


def _rows(turns: list[_Turn], rooms: list[int]) -> Iterator[tuple[bool, Iterator[tuple[_Turn, int]]]]:
    """Turns next to each other with their rooms, and whether nothing is left of them, so that one mark does."""
    return groupby(zip(turns, rooms, strict=True), key=lambda pair: not pair[1] and not pair[0].evidence)


def _rooms(
    turns: list[_Turn], budget: int, per_message: int, mark: int, issue: int | None, edit: int | None
) -> list[int] | None:
    """Tokens for each turn, 0 where only evidence stays; None if nothing fits."""
    last = len(turns) - 1
    longest = max(SHORTEST_TURN, *(turn.total for turn in turns))

    def nearness(index: int) -> int:
        """Turns to the first edit, or twice as many to either end of the run."""
        ends = 2 * min(index, last - index)
        return ends if edit is None else min(ends, abs(index - edit))

    leaving = sorted((index for index in range(len(turns)) if index != issue), key=nearness, reverse=True)

    def planned(step: int) -> list[int]:
        """Rooms ever smaller: lower caps for what was observed, then for the agent's turns, then turns left out."""
        observed = max(SHORTEST_TURN, longest - step)
        said = max(SHORTEST_TURN, min(longest, longest - (step - longest)))
        rooms = []
        for index, turn in enumerate(turns):
            near = edit is not None and abs(index - edit) <= 2
            room = observed if turn.message.role != "assistant" else max(said, SHORTEST_NEAR_EDIT) if near else said
            rooms.append(max(turn.total, 1) if index == issue else room)
        for index in leaving[: max(0, step - 2 * longest)]:
            rooms[index] = 0
        return rooms

    def fits(step: int) -> bool:
        left = budget
        for gone, row in _rows(turns, planned(step)):
            left -= mark + per_message if gone else sum(turn.cost(room) + per_message for turn, room in row)
        return left >= 0

    steps = range(2 * longest + len(leaving) + 1)
    step = bisect_left(steps, True, key=fits)
    return planned(step) if step < len(steps) else None
