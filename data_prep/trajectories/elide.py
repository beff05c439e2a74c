"""Shortens a run's turns to a number of tokens, with a mark for whatever is left out, and never within the evidence.

First the longest observations are cut to a common length, each keeping as many tokens of its head as of its tail. If
that is not enough, turns are left out from the middle of the run outwards. Evidence lines stay, word for word. Every
line is tokenised once; all planning is arithmetic on the counts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby

from data_prep.trajectories.placeholders import elided
from data_prep.trajectories.run import Message
from data_prep.trajectories.tokens import TokenCount, rough_count

SHORTEST_OBSERVATION = 160
_ROUNDS = 8


class _Turn:
    """One turn's lines, their tokens summed up, and which of them are evidence.

    ``room`` is always the tokens that the turn may have; with no room at all only evidence is left of it.
    """

    def __init__(self, message: Message, lengths: list[int], evidence: set[str], mark: int, observation: bool) -> None:
        self.message, self.mark, self.observation = message, mark, observation
        self.lines = message.content.split("\n")
        self.sums = [0, *accumulate(lengths)]
        self.total = self.sums[-1]
        self.evidence = [number for number, line in enumerate(self.lines) if line in evidence]
        # Besides the evidence and the marks around it.
        self.fixed = sum(lengths[number] for number in self.evidence) + mark * (len(self.evidence) + 1)

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
            pieces += [*self.lines[position:start], elided(self.sums[end] - self.sums[start])]
            position = end
        return Message(role=self.message.role, content="\n".join([*pieces, *self.lines[position:]]))


def elide(
    messages: Sequence[Message],
    budget: int,
    evidence: Iterable[tuple[int, str]] = (),
    count: TokenCount = rough_count,
    *,
    per_message: int = 0,
) -> tuple[Message, ...] | None:
    """The turns within ``budget`` tokens (``per_message`` more for each turn, for what a prompt puts around it).

    ``evidence`` holds (message index, line) as `evidence_lines` gives them. None when the evidence with its marks does
    not fit.
    """

    def tokens(shown: Sequence[Message]) -> int:
        return sum(count([message.content for message in shown])) + per_message * len(shown)

    if tokens(messages) <= budget:
        return tuple(messages)
    mark = count([elided(10**8) + "\n"])[0] + 1
    turns = _turns(messages, evidence, count, mark)
    aim = budget
    for _ in range(_ROUNDS):
        rooms = _rooms(turns, aim, per_message, mark)
        if rooms is None:
            return None
        shown = _render(turns, rooms)
        over = tokens(shown) - budget
        if over <= 0:
            return shown
        # Pieces joined to one text can take more tokens than apart; such a tokenizer gets a lower aim.
        aim -= over + 1
    return None


def _turns(
    messages: Sequence[Message], evidence: Iterable[tuple[int, str]], count: TokenCount, mark: int
) -> list[_Turn]:
    wanted: dict[int, set[str]] = defaultdict(set)
    for index, line in evidence:
        wanted[index].add(line)
    lines = [message.content.split("\n") for message in messages]
    lengths = iter(count([line + "\n" for group in lines for line in group]))
    first_user = next((index for index, message in enumerate(messages) if message.role == "user"), -1)
    turns = []
    for index, (message, group) in enumerate(zip(messages, lines, strict=True)):
        observation = index > first_user and message.role not in ("assistant", "system")
        turns.append(_Turn(message, [next(lengths) for _ in group], wanted[index], mark, observation))
    return turns


def _rows(turns: list[_Turn], rooms: list[int]) -> Iterator[tuple[bool, Iterator[tuple[_Turn, int]]]]:
    """Turns next to each other with their rooms, and whether nothing is left of them, so that one mark does."""
    return groupby(zip(turns, rooms, strict=True), key=lambda pair: not pair[1] and not pair[0].evidence)


def _rooms(turns: list[_Turn], budget: int, per_message: int, mark: int) -> list[int] | None:
    """Tokens for each turn, 0 for the block in the middle of which only evidence stays; None if nothing fits."""

    def capped(cap: int) -> list[int]:
        return [cap if turn.observation else max(turn.total, 1) for turn in turns]

    def blocked(size: int) -> list[int]:
        start = (len(turns) - size) // 2
        rooms = capped(SHORTEST_OBSERVATION)
        rooms[start : start + size] = [0] * size
        return rooms

    def cost(rooms: list[int]) -> int:
        """Tokens with a mark for each turn with nothing left."""
        pairs = zip(turns, rooms, strict=True)
        return sum((turn.cost(room) if room or turn.evidence else mark) + per_message for turn, room in pairs)

    longest = max((turn.total for turn in turns if turn.observation), default=0)
    caps = range(SHORTEST_OBSERVATION, max(longest, SHORTEST_OBSERVATION) + 1)
    if fitting := bisect_left(caps, True, key=lambda cap: cost(capped(cap)) > budget):
        return capped(caps[fitting - 1])
    rooms = blocked(1 + bisect_left(range(1, len(turns)), True, key=lambda size: cost(blocked(size)) <= budget))
    # Such turns next to each other share one mark, so that the largest block can fit all the same.
    spared = sum((sum(1 for _ in row) - 1) * (mark + per_message) for gone, row in _rows(turns, rooms) if gone)
    return rooms if cost(rooms) - spared <= budget else None


def _render(turns: list[_Turn], rooms: list[int]) -> tuple[Message, ...]:
    shown: list[Message] = []
    for gone, row in _rows(turns, rooms):
        if gone:
            shown.append(Message(role="user", content=elided(sum(turn.total for turn, _ in row))))
        else:
            shown += [turn.shown(room) for turn, room in row]
    return tuple(shown)
