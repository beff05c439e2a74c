"""Train, validation and probe without a leak: what is connected stays together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from data_prep.trajectories.candidates import draw
from data_prep.trajectories.groups import Group
from data_prep.trajectories.light import Light

Unit = Literal["instance", "repository"]


def assign_splits(
    groups: Sequence[Group],
    lights: Sequence[Light],
    shares: Mapping[str, float],
    *,
    by: Unit = "instance",
    seed: int = 1,
) -> list[str]:
    """A split for every group: no instance (or repository) is in two of them.

    Groups that share an instance, directly or through others, form a component; components go, in an order drawn from
    the seed, to the split that is furthest behind its share.

    Raises:
        ValueError: the shares do not sum to 1.
    """
    if abs(sum(shares.values()) - 1.0) > 1e-6 or min(shares.values()) < 0:
        raise ValueError(f"the shares of the splits are {dict(shares)}; they must be positive and sum to 1")
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def name_of(run: int) -> str:
        return lights[run].instance_id if by == "instance" else lights[run].repository

    for first, *others in groups:
        for other in others:
            low, high = sorted((root(name_of(first)), root(name_of(other))))
            parent[high] = low
    sizes: dict[str, int] = {}
    for group in groups:
        component = root(name_of(group[0]))
        sizes[component] = sizes.get(component, 0) + 1
    filled = dict.fromkeys(shares, 0)
    where: dict[str, str] = {}
    for component in sorted(sizes, key=lambda name: draw(seed, name)):
        behind = max(shares, key=lambda split: shares[split] * len(groups) - filled[split])
        where[component] = behind
        filled[behind] += sizes[component]
    return [where[root(name_of(group[0]))] for group in groups]
