"""Step times of two jobs that took turns: medians by stage, their ratio, and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# verl's timers within a step, in order. "other" is what none of them covers, such as handing out the prompts.
STAGES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")
TRAINING = ("old_log_prob", "ref", "adv", "update_actor")
# The first step compiles, allocates and fills caches.
LEFT_OUT = 1


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def seconds(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Stage -> seconds of every counted step, and ``training``, ``other`` and ``step``.

    Raises:
        KeyError: verl logged no time of a stage.
    """
    counted = steps[LEFT_OUT:]
    table = {stage: [float(step[f"timing_s/{stage}"]) for step in counted] for stage in (*STAGES, "step")}
    table["other"] = [
        max(0.0, whole - sum(table[stage][i] for stage in STAGES)) for i, whole in enumerate(table["step"])
    ]
    table["training"] = [sum(table[stage][i] for stage in TRAINING) for i in range(len(counted))]
    return table


def median_ratio(plain: Sequence[float], paired: Sequence[float], seed: int = 0, draws: int = 10_000) -> Interval:
    """Median time with pairs over median time without, and the percentile bootstrap over rounds.

    A round is a step of either job made next to each other; both are drawn together, so a time in which the machine
    was slow for both does not widen the interval.

    Args:
        plain, paired: seconds by round, of equal length.
    """
    if len(plain) != len(paired) or len(plain) == 0:
        raise ValueError(f"{len(plain)} steps without and {len(paired)} with pairs; a round has one of each")
    first, second = np.asarray(plain, float), np.asarray(paired, float)
    chosen = np.random.default_rng(seed).integers(0, len(first), (draws, len(first)))
    ratios = np.median(second[chosen], axis=1) / np.median(first[chosen], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(float(np.median(second) / np.median(first)), float(low), float(high))
