"""Counts of a pipeline: at every stage, what came in is what went out plus what was dropped, by reason."""

from __future__ import annotations

import errno
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.redact import redact

SAMPLES_PER_REASON = 3
_RAISED = "raised "
# What a step raises because of the machine, not because of its item: the next one would fail as well.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
# A stage in which more than so many things and more than this share of them fail unforeseen is a bug, not bad material.
_FEW, _SHARE = 4, 0.1


def is_of_item(error: Exception) -> bool:
    """Whether an exception of a step says something about the thing in work; else it is the job's or the machine's."""
    return not (isinstance(error, ConfigError | MemoryError) or getattr(error, "errno", None) in _MACHINE)


class Stage(BaseModel):
    """One named step: how many of a unit (runs, couples, pairs) came in, went on, and did not, by reason, with a few
    samples of each, small JSON records for people to read."""

    name: str
    unit: str = "runs"
    entered: int = 0
    left: int = 0
    dropped: Counter[str] = Field(default_factory=Counter)
    samples: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)

    def keep(self, count: int = 1) -> None:
        """Count things that go on."""
        self.entered += count
        self.left += count

    def drop(self, reason: str, sample: dict[str, Any] | None = None, count: int = 1) -> None:
        """Count things that do not, and keep the first samples of the reason."""
        self.entered += count
        self.dropped[reason] += count
        self._sample(reason, [] if sample is None else [sample])

    def fail(self, error: Exception, sample: dict[str, Any]) -> None:
        """Count one thing whose step raised what nobody foresaw, under the exception's type. Raises it again if it does
        not say anything about this thing (:func:`is_of_item`)."""
        if not is_of_item(error):
            raise error
        where = redact("".join(traceback.format_exception(error))).strip()
        self.drop(f"{_RAISED}{type(error).__name__}", {**sample, "traceback": where})

    @property
    def failures(self) -> dict[str, int]:
        """How many failed unforeseen, by reason."""
        return {reason: count for reason, count in self.dropped.items() if reason.startswith(_RAISED)}

    def too_many_failures(self, whole: bool) -> str:
        """How many failed unforeseen, with the first traceback, if they are more than 4 and more than a tenth or, of a
        ``whole`` stage, all; else nothing."""
        failures = self.failures
        count = sum(failures.values())
        if not failures or (count <= max(_FEW, _SHARE * self.entered) and not (whole and count == self.entered)):
            return ""
        return f"{count} of {self.entered} {self.unit}, at first\n{self.samples[next(iter(failures))][0]['traceback']}"

    def add(self, other: Stage) -> None:
        """Add the counts of the same stage from another worker."""
        self.entered += other.entered
        self.left += other.left
        self.dropped.update(other.dropped)
        for reason, samples in other.samples.items():
            self._sample(reason, samples)

    def _sample(self, reason: str, samples: list[dict[str, Any]]) -> None:
        kept = self.samples.setdefault(reason, [])
        kept += samples[: SAMPLES_PER_REASON - len(kept)]

    def summary(self) -> dict[str, Any]:
        """``{name, unit, in, out, dropped}`` as written to ``summary.json``."""
        counts = {"in": self.entered, "out": self.left, "dropped": dict(sorted(self.dropped.items()))}
        return {"name": self.name, "unit": self.unit, **counts}


class Funnel(BaseModel):
    """The stages of a run of the pipeline, in order."""

    stages: list[Stage] = Field(default_factory=list)

    def stage(self, name: str, unit: str = "runs") -> Stage:
        """The stage of that name, made at the end if it is new."""
        found = next((stage for stage in self.stages if stage.name == name), None)
        if found is None:
            self.stages.append(found := Stage(name=name, unit=unit))
        return found

    def add(self, other: Funnel) -> None:
        """Add another worker's counts stage by stage."""
        for stage in other.stages:
            self.stage(stage.name, stage.unit).add(stage)

    def check(self) -> None:
        """Raises AssertionError if some stage's counts do not add up; a bug, not the user's fault."""
        for stage in self.stages:
            if stage.entered != stage.left + stage.dropped.total():
                raise AssertionError(f"stage {stage.name}: {stage.summary()} does not add up")

    def sampled(self, key: str, *, at_least: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(stage, reason, sample) of the first sample of every reason that names ``at_least`` things under ``key``."""
        for stage in self:
            for reason, samples in stage.samples.items():
                if sample := next((one for one in samples if len(one.get(key, ())) >= at_least), None):
                    yield stage.name, reason, sample

    def __iter__(self) -> Iterator[Stage]:  # type: ignore[override]
        return iter(self.stages)
