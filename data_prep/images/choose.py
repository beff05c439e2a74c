"""A diverse choice among couples: in turn from every question, spread over its answers and over the pictures."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.common.funnel import Stage


@dataclass(frozen=True)
class Candidate:
    """A couple that may be chosen.

    Attributes:
        images: names of the two pictures.
        answers: classes of their answers.
        rank: stable and pseudo-random; the lower goes first where nothing else decides.
    """

    images: tuple[str, str]
    answers: tuple[str, str]
    rank: int


class _Question:
    """The couples of a question, by their two answers."""

    def __init__(self, candidates: Sequence[Candidate], uses: Counter[str]) -> None:
        self._uses = uses
        self._couples: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
        self._candidates = candidates
        for number, one in enumerate(candidates):
            self._couples[tuple(sorted(one.answers))].append((0, one.rank, number))
        for couples in self._couples.values():
            heapq.heapify(couples)
        self._answered: Counter[str] = Counter()
        self._pairs = [(0, 0, couples[0][1], answers) for answers, couples in self._couples.items()]
        heapq.heapify(self._pairs)
        self._chosen: Counter[tuple[str, str]] = Counter()

    def take(self, per_image: int, spent: list[int]) -> int | None:
        """Number of the next couple; those whose pictures are used up go to ``spent``. None when there is none."""
        while self._pairs:
            _, _, rank, answers = self._pairs[0]
            cost = (sum(self._answered[answer] for answer in answers), self._chosen[answers], rank, answers)
            # Costs only grow, so an entry whose cost is still true is the least.
            if cost != self._pairs[0]:
                heapq.heapreplace(self._pairs, cost)
                continue
            number = self._from(self._couples[answers], per_image, spent)
            if number is None:
                heapq.heappop(self._pairs)
                continue
            self._answered.update(answers)
            self._chosen[answers] += 1
            return number
        return None

    def _from(self, couples: list[tuple[int, int, int]], per_image: int, spent: list[int]) -> int | None:
        while couples:
            _, rank, number = couples[0]
            used = [self._uses[name] for name in self._candidates[number].images]
            if max(used) >= per_image:
                heapq.heappop(couples)
                spent.append(number)
            elif (sum(used), rank, number) != couples[0]:
                heapq.heapreplace(couples, (sum(used), rank, number))
            else:
                heapq.heappop(couples)
                return number
        return None

    def rest(self) -> list[int]:
        """Numbers of the couples that nobody took."""
        return sorted(number for couples in self._couples.values() for _, _, number in couples)


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
    waiting = [(number, _Question(candidates, uses)) for number, candidates in enumerate(questions)]
    chosen: list[tuple[int, int]] = []
    all_questions = list(waiting)
    while waiting and (limit is None or len(chosen) < limit):
        still = []
        for number, question in waiting:
            if limit is not None and len(chosen) >= limit:
                break
            spent: list[int] = []
            couple = question.take(per_image, spent)
            for one in spent:
                stage.drop(f"a picture in {per_image} couples already", {"images": list(questions[number][one].images)})
            if couple is not None:
                uses.update(questions[number][couple].images)
                chosen.append((number, couple))
                stage.keep()
                still.append((number, question))
        waiting = still
    for number, question in all_questions:
        rest = question.rest()
        if rest:
            stage.drop("over the limit", {"images": list(questions[number][rest[0]].images)}, count=len(rest))
    return chosen
