"""Tells of a run whose wrong pairs are wrong by more than the clip and therefore have no gradient. Plain Python."""

from __future__ import annotations

# Steps in a row; the share of pairs that are wrong, and of those that are stuck. A model that always names the same
# place is wrong in half of the orders.
_STEPS, _WRONG, _STUCK = 3, 0.25, 0.5


class StuckPairs:
    """Counts over the steps of a run; tells once, when most wrong pairs were stuck in several steps in a row."""

    def __init__(self) -> None:
        self._stuck, self._wrong, self._pairs, self._steps, self._told = 0.0, 0.0, 0, 0, False

    def add(self, stuck: float, wrong: float, pairs: int) -> None:
        """Pairs of a micro-batch, how many of them are wrong, and how many of those have no gradient."""
        self._stuck, self._wrong, self._pairs = self._stuck + stuck, self._wrong + wrong, self._pairs + pairs

    def end_of_step(self, margin: str) -> str | None:
        """One sentence, or None. ``margin`` is ``contextrl.loss.margin`` of the run."""
        stuck, wrong, pairs = self._stuck, self._wrong, self._pairs
        self._stuck, self._wrong, self._pairs = 0.0, 0.0, 0
        if pairs == 0:
            return None
        self._steps = self._steps + 1 if wrong >= _WRONG * pairs and stuck > _STUCK * wrong else 0
        if self._steps < _STEPS or self._told:
            return None
        self._told = True
        helps = "contextrl.loss.clip_mode=one_sided"
        if margin == "each":
            helps = f"contextrl.loss.margin=averaged with contextrl.pairs.orders=both, or {helps}"
        return (
            f"contextrl: in each of the last {_STEPS} steps most of the wrong pairs were wrong by more than "
            "contextrl.loss.clip, where the two-sided clip leaves no gradient (actor/contextrl/stuck_fraction), so "
            f"they train nothing. A model that always names the same place looks like this. What helps: {helps}."
        )
