"""What is left of an episode: how it ended, whose fault that is, and the tokens that are trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from contextrl_verl.agents.verify import Verdict


class Ending(str, Enum):
    """How an episode ended, and whose fault an end without a repair is."""

    # the model's
    SUBMITTED = "submitted"
    TURNS = "turns"
    TOKENS = "tokens"  # no room for the next observation and a reply to it
    WALL_CLOCK = "wall_clock"
    FORMAT = "format"  # too many replies in a row without exactly one command
    STUCK = "stuck"  # the same command with the same result too often in a row
    CHEAT = "cheat"  # submitted, and the verifier says so
    # the infrastructure's
    SANDBOX = "sandbox"
    SERVER = "server"
    VERIFIER = "verifier"
    OVERFLOW = "overflow"  # the task's prompt is too long, so nothing could be generated
    RECORD = "record"  # it cannot be written
    WORKER = "worker"  # the process that ran it died
    ERROR = "error"
    # nobody's
    CANCELLED = "cancelled"

    @property
    def fault(self) -> Literal["model", "infrastructure", "cancelled"]:
        if self is Ending.CANCELLED:
            return "cancelled"
        return "infrastructure" if self in _DROPPED else "model"


_DROPPED = {
    Ending.SANDBOX,
    Ending.SERVER,
    Ending.VERIFIER,
    Ending.OVERFLOW,
    Ending.RECORD,
    Ending.WORKER,
    Ending.ERROR,
}


@dataclass
class Episode:
    """What is left of an episode. A ``kept`` one ends with a token of the model; the lists of the response are equally
    long. ``metrics`` are counts and seconds."""

    ending: Ending = Ending.ERROR
    detail: str = ""
    prompt_ids: list[int] = field(default_factory=list)
    response_ids: list[int] = field(default_factory=list)
    response_mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    patch: str = ""
    verdict: Verdict | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        return self.ending.fault == "model"

    @property
    def reward(self) -> float:
        return float(self.verdict is not None and self.verdict.resolved)

    def append(self, ids: list[int], logprobs: list[float] | None = None) -> None:
        """Tokens of the model with their log-probabilities, or of somebody else without."""
        self.response_ids += ids
        self.response_mask += [int(logprobs is not None)] * len(ids)
        self.logprobs += [0.0] * len(ids) if logprobs is None else logprobs

    def end(self, ending: Ending, detail: str) -> None:
        """Set the ending, and cut what was said after the model's last token, which nobody answered."""
        self.ending, self.detail = ending, detail
        last = len(self.response_mask)
        while last and not self.response_mask[last - 1]:
            last -= 1
        for values in (self.response_ids, self.response_mask, self.logprobs):
            del values[last:]
