"""Stops a job whose reward function fails on every response of a data source. Plain Python.

verl drops a row whose reward raises and trains on, and a row that scores 0 for an error of the scorer trains on noise.
``reward_fns.dispatch`` marks such rows (``reward_error``), and the engine, which sees them all, looks here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Responses of a source on one rank.
_ENOUGH = 8


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

        Raises:
            RuntimeError: the first responses of a source all failed.
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
