"""Groups of runs, chosen among couples.

A group of N runs gives N pairs: each run in turn supports its own patch against the others, so that nothing about a run
by itself tells the answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from data_prep.common.funnel import Funnel
from data_prep.common.splits import assign_components, draw
from data_prep.trajectories.candidates import Couple, Kind
from data_prep.trajectories.passes import Light

Unit = Literal["instance", "repository"]
Group = tuple[int, ...]


@dataclass(frozen=True)
class GroupSettings:
    """How groups are chosen among couples.

    Attributes:
        options: contexts of a pair; 2 is one confounder.
        per_run: groups that one run may be in.
        per_file: groups whose runs have a file of one repository in common.
        limit: groups in all; 0 for no limit. The paper keeps 1,000 pairs of 66,000 runs.
    """

    options: Annotated[int, Field(ge=2)] = 2
    per_run: Annotated[int, Field(ge=1)] = 4
    per_file: Annotated[int, Field(ge=1)] = 200
    limit: Annotated[int, Field(ge=0)] = 2500


def choose_groups(
    couples: Mapping[Couple, Kind],
    lights: Sequence[Light],
    settings: GroupSettings,
    funnel: Funnel,
    seed: int = 1,
    overlap: Mapping[Couple, float] | None = None,
) -> dict[Group, Kind]:
    """Groups of ``settings.options`` runs, every two of them a couple of one kind; counts go to the funnel, in couples.

    Couples of which ``overlap`` is least come first; among equals, ``seed`` decides.
    """
    overlap = overlap or {}
    stage = funnel.stage("caps", "couples")
    neighbours: dict[Kind, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for (one, other), kind in couples.items():
        neighbours[kind][one].add(other)
        neighbours[kind][other].add(one)
    used: Counter[int] = Counter()
    in_file: Counter[tuple[str, str]] = Counter()
    groups: dict[Group, Kind] = {}

    def extended(couple: Couple) -> Group:
        """With further runs, as many as fit."""
        group, near = list(couple), neighbours[couples[couple]]
        common = near[couple[0]] & near[couple[1]]
        for run in sorted(common, key=lambda index: draw(seed, "more", lights[index].run_id)):
            if len(group) < settings.options and used[run] < settings.per_run and near[run].issuperset(group):
                group.append(run)
        return tuple(sorted(group))

    def rank(couple: Couple) -> tuple[float, bytes]:
        return overlap.get(couple, 0.0), draw(seed, *(lights[index].run_id for index in couple))

    for one, other in sorted(couples, key=rank):
        files = {(lights[one].repository, file) for file in lights[one].files & lights[other].files}
        group, reason = (), ""
        if settings.limit and len(groups) >= settings.limit:
            reason = "over the limit in all"
        elif max(used[one], used[other]) >= settings.per_run:
            reason = f"a run is in {settings.per_run} groups already"
        elif any(in_file[file] >= settings.per_file for file in files):
            reason = f"a file has {settings.per_file} groups already"
        elif len(group := extended((one, other))) < settings.options:
            reason = "no further run fits"
        elif group in groups:
            reason = "the same group again"
        if reason:
            stage.drop(reason, {"runs": [lights[one].run_id, lights[other].run_id]})
            continue
        stage.keep()
        groups[group] = couples[one, other]
        used.update(group)
        in_file.update(files)
    return dict(sorted(groups.items()))


def assign_splits(
    groups: Sequence[Group], lights: Sequence[Light], shares: Mapping[str, float], *, by: Unit, seed: int = 1
) -> list[str]:
    """A split for every group, so that no instance, or no repository, is in two of them."""
    unit = {"instance": "instance_id", "repository": "repository"}[by]
    return assign_components([[getattr(lights[run], unit) for run in group] for group in groups], shares, seed=seed)
