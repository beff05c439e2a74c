"""Shortens a run's turns to a number of tokens, with a mark for whatever is left out, and never within the evidence.

First the longest observations are cut to a common length, each keeping as many tokens of its head as of its tail. If
that is not enough, turns are left out from the middle of the run outwards. Evidence lines stay, word for word. Every
line is tokenised once; all planning is arithmetic on the counts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from data_prep.trajectories.placeholders import elided
from data_prep.trajectories.run import Message
from data_prep.trajectories.tokens import TokenCount, token_counter

SHORTEST_OBSERVATION = 160
EVIDENCE_TOO_LONG = "the evidence alone exceeds the token budget"
_ROUNDS = 8


@dataclass(frozen=True)
class Elided:
    """Turns within a budget.

    Attributes:
        messages: the turns; empty when ``reason`` says why there are none.
        tokens: their tokens, counted in the final text, with the overhead of each turn.
        left_out: tokens that marks stand for.
        turns_left_out: turns of which nothing is left.
        reason: why the turns cannot be brought within the budget; empty if they are.
    """

    messages: tuple[Message, ...]
    tokens: int
    left_out: int = 0
    turns_left_out: int = 0
    reason: str = ""


class _Turn:
    """One turn's lines, their tokens summed up, and which of them are evidence."""

    def __init__(
        self, message: Message, lines: list[str], sums: list[int], evidence: list[int], mark: int, observation: bool
    ) -> None:
        self.message, self.lines, self.sums, self.mark = message, lines, sums, mark
        self.evidence, self.observation = evidence, observation
        self.total = sums[-1]
        self.evidence_total = sum(sums[number + 1] - sums[number] for number in evidence)
        self.room_for_marks = mark * (len(evidence) + 1)

    def ends(self, room: int) -> tuple[int, int]:
        """How many lines of the head, and from which line the tail, fit in so many tokens besides the evidence."""
        half = (room - self.evidence_total - self.room_for_marks) // 2
        if half <= 0:
            return 0, len(self.lines)
        head = bisect_right(self.sums, half) - 1
        return head, max(head, bisect_left(self.sums, self.total - half))

    def gaps(self, room: int) -> list[tuple[int, int]]:
        """Spans of lines to leave out so that the turn has about so many tokens; none is shorter than a mark."""
        if self.total <= room:
            return []
        head, tail = self.ends(room)
        gaps, start = [], head
        for number in [*self.evidence[bisect_left(self.evidence, head) : bisect_left(self.evidence, tail)], tail]:
            if number > start and self.sums[number] - self.sums[start] > self.mark:
                gaps.append((start, number))
            start = number + 1
        return gaps

    def cost(self, room: int) -> int:
        """Tokens of the turn with these gaps."""
        return self.total + sum(self.mark - self.sums[end] + self.sums[start] for start, end in self.gaps(room))

    def text(self, room: int) -> str:
        """The turn with a mark for each gap."""
        pieces: list[str] = []
        position = 0
        for start, end in self.gaps(room):
            pieces += [*self.lines[position:start], elided(self.sums[end] - self.sums[start])]
            position = end
        return "\n".join([*pieces, *self.lines[position:]])


def elide(
    messages: Sequence[Message],
    budget: int,
    evidence: Iterable[tuple[int, str]] = (),
    tokenizer: Any = None,
    *,
    per_message: int = 0,
) -> Elided:
    """Bring the turns within ``budget`` tokens (``per_message`` more for each turn, for what a prompt puts around it).

    ``evidence`` holds (message index, line) as `evidence_lines` gives them. When the evidence with its marks does not
    fit, the result has no messages and says so in ``reason``.
    """
    count = token_counter(tokenizer)
    mark = count([elided(10**8) + "\n"])[0] + 1
    turns = _turns(messages, evidence, count, mark)

    def counted(shown: Sequence[Message]) -> int:
        return sum(count([message.content for message in shown])) + per_message * len(shown)

    # Lines apart take a little more than the whole text, so a close call is settled by counting the whole.
    close = sum(turn.total for turn in turns) + per_message * len(turns) <= budget + budget // 8
    if close and (tokens := counted(messages)) <= budget:
        return Elided(tuple(messages), tokens)
    aim = budget
    for _ in range(_ROUNDS):
        plan = _plan(turns, aim, per_message, mark)
        if plan is None:
            break
        shown, left_out, gone = _render(turns, *plan)
        tokens = counted(shown)
        if tokens <= budget:
            return Elided(shown, tokens, left_out, gone)
        # Pieces joined to one text can take more tokens than apart; such a tokenizer gets a lower aim.
        aim -= tokens - budget + 1
    tokens = counted(messages)
    return Elided(tuple(messages), tokens) if tokens <= budget else Elided((), 0, reason=EVIDENCE_TOO_LONG)


def _turns(
    messages: Sequence[Message], evidence: Iterable[tuple[int, str]], count: TokenCount, mark: int
) -> list[_Turn]:
    by_message: dict[int, set[str]] = {}
    for index, line in evidence:
        by_message.setdefault(index, set()).add(line)
    lines = [message.content.split("\n") for message in messages]
    lengths = iter(count([line + "\n" for group in lines for line in group]))
    first_user = next((index for index, message in enumerate(messages) if message.role == "user"), -1)
    turns = []
    for index, (message, group) in enumerate(zip(messages, lines, strict=True)):
        sums = [0, *accumulate(next(lengths) for _ in group)]
        wanted = by_message.get(index, ())
        kept = [number for number, line in enumerate(group) if line in wanted] if wanted else []
        observation = index > first_user and message.role not in ("assistant", "system")
        turns.append(_Turn(message, group, sums, kept, mark, observation))
    return turns


def _plan(turns: list[_Turn], budget: int, per_message: int, mark: int) -> tuple[list[int], int, int] | None:
    """Tokens for each turn, and the block of turns of which only evidence stays; None if nothing fits."""

    def rooms(cap: int) -> list[int]:
        return [cap if turn.observation else turn.total for turn in turns]

    def costs(cap: int) -> list[int]:
        return [turn.cost(room) + per_message for turn, room in zip(turns, rooms(cap), strict=True)]

    low, high = SHORTEST_OBSERVATION, max((turn.total for turn in turns if turn.observation), default=0)
    best = -1
    while low <= high:
        cap = (low + high) // 2
        if sum(costs(cap)) <= budget:
            best, low = cap, cap + 1
        else:
            high = cap - 1
    if best >= 0:
        return rooms(best), 0, 0
    full = [0, *accumulate(costs(SHORTEST_OBSERVATION))]

    def block(size: int) -> tuple[int, int]:
        start = (len(turns) - size) // 2
        return start, start + size

    def cost(size: int, shared: bool) -> int:
        """Tokens without a block of so many turns, whose row of turns with nothing left may share one mark."""
        start, end = block(size)
        total, gone_before = full[start] + full[-1] - full[end], False
        for turn in turns[start:end]:
            if turn.evidence or not (gone_before and shared):
                total += per_message + (turn.cost(0) if turn.evidence else mark)
            gone_before = not turn.evidence
        return total

    # All turns but the evidence can fit by shared marks although the search, with a mark each, says no.
    size = 1 + bisect_left(range(1, len(turns)), True, key=lambda size: cost(size, shared=False) <= budget)
    return (rooms(SHORTEST_OBSERVATION), *block(size)) if cost(size, shared=True) <= budget else None


def _render(turns: list[_Turn], rooms: list[int], start: int, end: int) -> tuple[tuple[Message, ...], int, int]:
    """The turns, the tokens left out, and how many turns are gone."""
    shown: list[Message] = []
    left_out, gone, waiting = 0, 0, 0
    for index, turn in enumerate(turns):
        inside = start <= index < end
        if inside and not turn.evidence:
            waiting += turn.total
            left_out += turn.total
            gone += 1
            if index + 1 < end and not turns[index + 1].evidence:
                continue
            shown.append(Message(role="user", content=elided(waiting)))
            waiting = 0
            continue
        room = 0 if inside else rooms[index]
        gaps = turn.gaps(room)
        left_out += sum(turn.sums[last] - turn.sums[first] for first, last in gaps)
        shown.append(Message(role=turn.message.role, content=turn.text(room)) if gaps else turn.message)
    return tuple(shown), left_out, gone
