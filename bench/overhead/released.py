"""The released schedules next to this project's carrier rows, from the paper's published numbers.

Where a length is not published, the longest that the released settings allow stands for it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bench.overhead.accounting import EASYR1, SKYRL, Passes, ReleasedSchedule, Tokens, carrier, ordinary

# One step of the released Qwen3-8B settings on four GPUs, as its reproduction logged it: 16 tasks sampled 8 times,
# 30,910 tokens a response on average, 304 s of policy training in a batch of 56 min 59 s.
AGENT_TASKS, AGENT_ROLLOUTS, AGENT_RESPONSE = 16, 8, 30_910
POLICY_TRAINING_SECONDS, BATCH_SECONDS = 304, 56 * 60 + 59
# The image settings: 256 items sampled 8 times; no mean length is published.
IMAGE_SEQUENCES = 256 * 8


@dataclass(frozen=True)
class Line:
    """One line of the table; tokens are of a step, over all ranks."""

    name: str
    pairs: int
    uses: int
    tokens: Tokens

    @property
    def forward_per_pair(self) -> int:
        """Positions forwarded for one drawn pair."""
        return self.tokens.forward // self.pairs

    @property
    def backward_per_pair(self) -> int:
        """Positions backwarded for one drawn pair."""
        return self.tokens.backward // self.pairs


def lines(passes: Passes = Passes()) -> list[Line]:
    """Each released schedule, then its pairs as carrier rows, and as many new pairs as it has uses if that differs."""
    table = []
    for schedule in (EASYR1, SKYRL):
        table.append(Line(schedule.name, schedule.drawn, schedule.uses, schedule.tokens()))
        table.append(_ours(schedule, schedule.drawn, "the same pairs as carrier rows", passes))
        if schedule.uses > 1:
            table.append(_ours(schedule, schedule.drawn * schedule.uses, "as many new pairs as it has uses", passes))
    return table


def _ours(schedule: ReleasedSchedule, pairs: int, name: str, passes: Passes) -> Line:
    # Packed rows have no padding: this is an upper bound unless every pair is as long as allowed.
    return Line(name, pairs, 1, carrier(pairs, schedule.positions, passes))


def break_even_length(passes: Passes = Passes()) -> float:
    """Mean tokens of an ordinary image row at which EasyR1's pairs cost as much as all rows of the step."""
    return EASYR1.tokens().work / passes.of(IMAGE_SEQUENCES).work


def agent_shares(passes: Passes = Passes()) -> dict[str, float]:
    """Upper bounds of what the 16 pairs of an agent step add to the trainer's work on its ordinary rows.

    Pairs count as long as allowed, and ordinary rows as their responses alone.
    """
    rows = ordinary(AGENT_TASKS, AGENT_ROLLOUTS, 0, AGENT_RESPONSE, passes).work
    pairs = carrier(SKYRL.drawn, SKYRL.positions, passes).work
    return {"released": SKYRL.tokens().work / rows, "carrier": pairs / rows}


def agent_seconds(passes: Passes = Passes()) -> dict[str, float]:
    """The same in seconds of the logged step, if the 304 s hold the pairs and time follows tokens.

    The update makes one forward and one backward pass of rows and pairs; what verl's scoring passes read of a carrier
    row comes on top.
    """
    update = Passes(old_log_prob=False, reference=False)
    rows = ordinary(AGENT_TASKS, AGENT_ROLLOUTS, 0, AGENT_RESPONSE, update).work
    pairs = SKYRL.tokens().work
    released = POLICY_TRAINING_SECONDS * pairs / (rows + pairs)
    return {"released": released, "carrier": released * carrier(SKYRL.drawn, SKYRL.positions, passes).work / pairs}


def figures() -> dict[str, Any]:
    """All of this, ready for JSON."""
    return {
        "lines": [
            {"name": line.name, "pairs": line.pairs, "uses": line.uses, **asdict(line.tokens)}
            | {"forward_per_pair": line.forward_per_pair, "backward_per_pair": line.backward_per_pair}
            | {"work": line.tokens.work}
            for line in lines()
        ],
        "break_even_length": break_even_length(),
        "agent_shares": agent_shares(),
        "agent_seconds": agent_seconds(),
        "agent_batch_seconds": BATCH_SECONDS,
    }
