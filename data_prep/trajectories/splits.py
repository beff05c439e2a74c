"""Splits of groups of runs: no instance, or no repository, is in two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from data_prep.common.splits import assign_components
from data_prep.trajectories.groups import Group
from data_prep.trajectories.run_summary import Light

Unit = Literal["instance", "repository"]


def assign_splits(
    groups: Sequence[Group],
    lights: Sequence[Light],
    shares: Mapping[str, float],
    *,
    by: Unit = "instance",
    seed: int = 1,
) -> list[str]:
    """A split for every group; see :func:`data_prep.common.splits.assign_components`."""

    def name_of(run: int) -> str:
        return lights[run].instance_id if by == "instance" else lights[run].repository

    return assign_components([[name_of(run) for run in group] for group in groups], shares, seed=seed)
