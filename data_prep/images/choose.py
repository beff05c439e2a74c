"""A diverse choice among couples: in turn from every question, spread over its answers and over the pictures."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from data_prep.common.funnel import Stage


class Candidate(NamedTuple):
    """A couple that may be chosen.

    Attributes:
        images: names of the two pictures.
        answers: classes of their answers.
        rank: stable and pseudo-random; the lower goes first where nothing else decides.
    """

    images: tuple[str, str]
    answers: tuple[str, str]
    rank: int


def choose(
    questions: Sequence[Sequence[Candidate]], *, per_image: int, limit: int | None, stage: Stage
) -> list[tuple[int, int]]:
    """Choose couples as (number of the question, number of the couple), in the order of choice.

    Each question in turn gives one couple: of the two answers that it has given least so far, and of the pictures used
    least so far. Both directions of a couple become pairs, so each answer of a question is as often right as wrong.

    Args:
        questions: couples of each question; their order is that of the turns.
        per_image: couples that a picture may be in.
        limit: couples at most; None takes all that the pictures allow.
        stage: gets the counts.
    """
    uses: Counter[str] = Counter()
    left = [dict.fromkeys(range(len(candidates))) for candidates in questions]
    turns = [
        (number, _turns(candidates, left[number], uses, per_image, stage))
        for number, candidates in enumerate(questions)
    ]
    chosen: list[tuple[int, int]] = []
    while turns and len(chosen) != limit:
        still = []
        for number, turn in turns:
            if len(chosen) == limit:
                break
            couple = next(turn, None)
            if couple is not None:
                chosen.append((number, couple))
                still.append((number, turn))
        turns = still
    for candidates, rest in zip(questions, left, strict=True):
        if rest:
            stage.drop("over the limit", {"images": list(candidates[next(iter(rest))].images)}, count=len(rest))
    return chosen


def _turns(
    candidates: Sequence[Candidate], left: dict[int, None], uses: Counter[str], per_image: int, stage: Stage
) -> Iterator[int]:
    """Numbers of a question's couples, one at each of its turns; takes them from ``left``."""
    answered: Counter[str] = Counter()
    chosen: Counter[tuple[str, str]] = Counter()
    couples: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for number, one in enumerate(candidates):
        couples[tuple(sorted(one.answers))].append((0, one.rank, number))
    for heap in couples.values():
        heapq.heapify(heap)
    first = {answers: heap[0][1] for answers, heap in couples.items()}
    pairs = [(0, 0, rank, answers) for answers, rank in first.items()]
    heapq.heapify(pairs)

    def cost_of_answers(answers: tuple[str, str]) -> tuple[Any, ...]:
        return sum(answered[answer] for answer in answers), chosen[answers], first[answers], answers

    def cost_of_couple(number: int) -> tuple[Any, ...] | None:
        used = [uses[name] for name in candidates[number].images]
        return None if max(used) >= per_image else (sum(used), candidates[number].rank, number)

    def spent(number: int) -> None:
        left.pop(number)
        stage.drop(f"a picture in {per_image} couples already", {"images": list(candidates[number].images)})

    while (answers := _least(pairs, cost_of_answers)) is not None:
        number = _least(couples[answers], cost_of_couple, spent)
        if number is None:
            heapq.heappop(pairs)
            continue
        heapq.heappop(couples[answers])
        left.pop(number)
        answered.update(answers)
        chosen[answers] += 1
        uses.update(candidates[number].images)
        stage.keep()
        yield number


def _least(heap: list[Any], cost: Callable[[Any], Any], spent: Callable[[Any], None] | None = None) -> Any:
    """What stands last in the least entry; its cost is None once it is spent. None for an empty heap."""
    # Costs only grow, so an entry whose cost is still true is the least.
    while heap and (now := cost(heap[0][-1])) != heap[0]:
        if now is None:
            spent(heapq.heappop(heap)[-1])
        else:
            heapq.heapreplace(heap, now)
    return heap[0][-1] if heap else None
