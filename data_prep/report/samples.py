"""Samples that a funnel keeps of what was dropped, chosen for the page."""

from __future__ import annotations

from typing import Any

from data_prep.common.funnel import Funnel


def sampled(funnel: Funnel, key: str, *, at_least: int, each: int = 1) -> list[tuple[str, str, dict[str, Any]]]:
    """(stage, reason, sample), ``each`` for every reason, in the funnel's order.

    Args:
        key: of the samples taken; it must name ``at_least`` things.
    """
    return [
        (stage.name, reason, sample)
        for stage in funnel
        for reason, samples in stage.samples.items()
        for sample in [one for one in samples if len(one.get(key, ())) >= at_least][:each]
    ]
