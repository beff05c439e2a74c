"""What every episode of an agent tells the trainer, and the metrics of a step that come of it. No verl.

verl's own metrics know rows, and an episode that the infrastructure lost has no row. So each episode, kept or lost,
leaves a note of plain values in a partition of TransferQueue, which the replay buffer reads and clears.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from contextrl_verl.agents.ending import Ending, Episode

NOTES = "contextrl_episodes"  # the partition; keys are those of rows without their last part: uid_session
Note = Mapping[str, Any]


def note_of(episode: Episode) -> dict[str, Any]:
    """An episode's note."""
    return {
        "ending": episode.ending.value,
        "kept": episode.kept,
        "detail": episode.detail[:300],
        "resolved": episode.reward,
        **episode.metrics,
    }


def lost_note(ending: Ending, detail: str) -> dict[str, Any]:
    """The note of an episode of which nothing else is left."""
    return note_of(Episode(ending=ending, detail=detail))


def step_metrics(notes: Sequence[Note]) -> dict[str, float]:
    """``contextrl/agent/...`` of the episodes of a step; the same keys in every step that has a kept episode."""
    if not notes:
        return {}
    kept, lost = [note for note in notes if note["kept"]], Counter(_lost(notes))
    values: dict[str, float] = {"episodes": len(notes), "infrastructure": lost.total()}
    values |= {f"infrastructure/{end.value}": lost[end.value] for end in Ending if end.fault == "infrastructure"}
    if kept:
        ends = Counter(note["ending"] for note in kept)
        values |= {f"endings/{end.value}": ends[end.value] / len(kept) for end in Ending if end.fault == "model"}
        numbers = kept[0].keys() - {"ending", "kept", "detail"}
        values |= {name: fmean(note[name] for note in kept) for name in sorted(numbers)}
    return {f"contextrl/agent/{name}": float(value) for name, value in values.items()}


def losses_told(notes: Sequence[Note]) -> str | None:
    """A sentence on the episodes that were lost, with the last one's reason; None if there are none."""
    lost = Counter(_lost(notes))
    if not lost:
        return None
    last = next(note for note in reversed(notes) if not note["kept"])
    reasons = ", ".join(f"{ending} {count}" for ending, count in sorted(lost.items()))
    return (
        f"{lost.total()} of {len(notes)} episodes were lost to the infrastructure and are not trained ({reasons}). "
        f"The last one ({last['ending']}): {' '.join(last['detail'].split()).rstrip('.') or 'no more is known'}"
    )


def too_many_lost(notes: Sequence[Note], most: float) -> str | None:
    """Why the job has to stop, if more than the share ``most`` of the episodes were lost; else None."""
    if len(list(_lost(notes))) <= most * len(notes):
        return None
    return (
        f"contextrl: {losses_told(notes)}. That is more than contextrl.agent.max_infrastructure_share={most:g}, and "
        "what is left of the groups would be biased. Fix: mend what the reason names (contextrl doctor tries the "
        "sandbox), or raise the share."
    )


def _lost(notes: Sequence[Note]) -> list[str]:
    return [note["ending"] for note in notes if not note["kept"]]
