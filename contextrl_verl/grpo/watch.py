"""Watches a run that trains on nothing, from inside the engine, which sees every row. Plain Python.

A wrong pair that is wrong by more than the clip has no gradient: a sentence. A reward function that fails on every
response of a data source ends the job: verl drops a row whose reward raises and trains on, and a row that scores 0 for
an error of the scorer trains on noise. ``reward_fns.dispatch`` marks such rows (``reward_error``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Steps in a row; the share of pairs that are wrong, and of those that are stuck. A model that always names the same
# place is wrong in half of the orders.
_STEPS, _WRONG, _STUCK = 3, 0.25, 0.5
# Responses of a source on one rank.
_ENOUGH = 8


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


def told_of_rewards(data: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Data source and the reward's own fields of every row of a batch; nothing of a batch that has neither."""
    if "data_source" not in data.keys() or "extra_fields" not in data.keys():
        return
    for source, extra in zip(data["data_source"], data["extra_fields"], strict=True):
        extra = getattr(extra, "data", extra)
        yield str(getattr(source, "data", source)), extra.get("reward_extra_info") or {}


class FailingRewards:
    """Counts the responses of every source until one is scored."""

    def __init__(self) -> None:
        self._failed: Counter[str] = Counter()
        self._scored: set[str] = set()

    def look(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Count rows of (data source, what the reward function returned beside the score).

        Raises RuntimeError when the first responses of a source all failed.
        """
        last: dict[str, str] = {}
        for source, told in rows:
            error = told.get("reward_error")
            if error:
                self._failed[source] += 1
                last[source] = error
            elif error is not None:
                self._scored.add(source)
        for source, error in last.items():
            if source not in self._scored and self._failed[source] >= _ENOUGH:
                raise RuntimeError(
                    f"contextrl: the reward function failed on each of the first {self._failed[source]} responses of "
                    f"the data source {source!r}, with {error}. Training on would learn from rewards of 0 that mean "
                    "nothing. Fix: mend the function that serves the source; contextrl_verl's docs/rewards.md shows "
                    "how to try it."
                )
