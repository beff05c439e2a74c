"""Which pairs stay: those solved between two bounds, couple by couple."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from contextrl_verl.pairs import ContrastivePair
from data_prep.common.funnel import Funnel
from data_prep.difficulty.attempts import Attempt, Reply, chosen
from data_prep.verify.rules import couple_of


@dataclass
class Tally:
    """What a model did with one pair.

    Attributes:
        tried, right: replies that came, and those that solve it, by the label of the supporting context.
        unparsed: replies that name no option.
        failures: tries without a reply, by cause.
    """

    tried: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    unparsed: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def solved(self) -> int:
        """How many tries solved the pair."""
        return self.right.total()

    def add(self, attempt: Attempt, reply: Reply) -> None:
        """Count one try."""
        if reply.text is None:
            self.failures[reply.failure] += 1
            return
        label = chosen(attempt, reply.text)
        self.tried[attempt.right] += 1
        self.right[attempt.right] += label == attempt.right
        self.unparsed += not label


def tallies(replies: Iterable[tuple[Attempt, Reply]]) -> dict[str, Tally]:
    """Tallies by pair id."""
    found: dict[str, Tally] = {}
    for attempt, reply in replies:
        found.setdefault(attempt.pair_id, Tally()).add(attempt, reply)
    return found


def decide(
    pairs: Iterable[ContrastivePair], found: dict[str, Tally], tries: int, bounds: tuple[int, int], funnel: Funnel
) -> dict[str, str]:
    """A reason to drop for every pair that goes, by pair id; counts go to the stage ``difficulty``.

    A couple stands or falls as a whole: a set in which one direction of a couple is missing would tell the label.

    Args:
        bounds: least and most solved tries of ``tries``, both included.
    """
    low, high = bounds
    reasons: dict[str, str] = {}
    couples = {pair.pair_id: couple_of(pair) for pair in pairs}
    for pair_id in couples:
        tally = found[pair_id]
        if tally.failures:
            reasons[pair_id] = f"not tried: {tally.failures.most_common(1)[0][0]}"
        elif tally.solved < low:
            reasons[pair_id] = f"too hard: solved fewer than {low} of {tries}"
        elif tally.solved > high:
            reasons[pair_id] = f"too easy: solved more than {high} of {tries}"
    broken = {couples[pair_id] for pair_id in reasons}
    stage = funnel.stage("difficulty", "pairs")
    for pair_id, couple in couples.items():
        if couple in broken:
            reason = reasons.setdefault(pair_id, "another direction is dropped")
            stage.drop(reason, {"pair_id": pair_id, "solved": found[pair_id].solved})
        else:
            stage.keep()
    return reasons


def kept_pairs(
    pairs: Iterable[ContrastivePair], found: dict[str, Tally], reasons: dict[str, str], model: str
) -> Iterator[ContrastivePair]:
    """The pairs that stay, with ``provenance["difficulty"]``: model, solved and tried."""
    for pair in pairs:
        if pair.pair_id not in reasons:
            tally = found[pair.pair_id]
            note = {"model": model, "solved": tally.solved, "of": tally.tried.total()}
            yield pair.model_copy(update={"provenance": {**pair.provenance, "difficulty": note}})
