"""The paper's cascade on light records: couples of runs alike in everything but the evidence.

Couples are never enumerated beyond runs that edited the same file; what the first stages drop is counted by
arithmetic, so the funnel is complete without it.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb
from typing import Annotated, Any, Literal

from pydantic import Field

from data_prep.common.funnel import Funnel, Stage
from data_prep.common.seeded import draw
from data_prep.trajectories.issue_similarity import IssueSimilarity
from data_prep.trajectories.run_summary import Light

CommitRule = Literal["same", "near", "any"]
Level = Literal["file", "class", "function"]
Couple = tuple[int, int]
Similarity = Callable[[Light, Light], float]
WORDS_BAND = (0.02, 0.8)
# Couples gone through for a sample of what was counted by arithmetic.
_LOOKED_AT = 20_000


@dataclass(frozen=True)
class CascadeSettings:
    """Parameters of the stages.

    Attributes:
        commit: ``same`` base commit; ``near``: instance numbers at most ``near`` apart; ``any``.
        level: what must be shared: a ``file``; a function or ``class`` (the paper's stage); the very ``function``.
        near: largest distance of the numbers that instance ids end in, for ``commit=near``.
        related: band of the issues' similarity; below it issues are unrelated, above it nearly the same. None is the
            band of shared words; each encoder has one of its own.
        alike: patches with this share of added lines in common (of the smaller patch) are the same answer.
        patch_ratio: longer over shorter patch, in added lines, at most; beyond it the number of masks in a context
            would tell which patch is its own.
        bucket: most runs compared for one file; beyond it, runs are drawn.
    """

    commit: CommitRule = "same"
    near: Annotated[int, Field(ge=0)] = 500
    level: Level = "class"
    related: tuple[float, float] | None = None
    alike: float = 0.5
    patch_ratio: Annotated[float, Field(ge=1)] = 2.0
    bucket: Annotated[int, Field(ge=2)] = 400

    @property
    def band(self) -> tuple[float, float]:
        """The band in use."""
        return self.related or WORDS_BAND


def find_couples(
    lights: Sequence[Light],
    settings: CascadeSettings,
    funnel: Funnel,
    similarity_of: Callable[[Iterable[Light]], Similarity] = IssueSimilarity,
    seen: array[float] | None = None,
    seed: int = 1,
) -> list[Couple]:
    """Couples that pass every stage, as ascending indices, in a fixed order; counts go to ``funnel``.

    Args:
        similarity_of: makes the similarity of two issues from the runs that are still in some couple.
        seen: gets the similarity of every couple that was asked for it.
        seed: draws the runs of a file that too many edit.
    """
    by_repository: dict[str, list[int]] = defaultdict(list)
    for index, light in enumerate(lights):
        by_repository[light.repository].append(index)
    inside = sum(comb(len(members), 2) for members in by_repository.values())
    sample = _first_couple(lights, [range(len(lights))], lambda a, b: a.repository != b.repository)
    _count(funnel.stage("same repository", "couples"), comb(len(lights), 2), inside, "other repository", sample)

    known = sum(_commit_couples([lights[i] for i in members], settings) for members in by_repository.values())
    reason = {"same": "other or unknown commit", "near": f"more than {settings.near} apart", "any": ""}[settings.commit]
    sample = _first_couple(lights, by_repository.values(), lambda a, b: not _commits_fit(a, b, settings))
    _count(funnel.stage("commit", "couples"), inside, known, reason, sample)

    couples, truncated = _same_file(lights, settings, seed)
    reason = "no file in common" + (f", or only one that over {settings.bucket} runs edit" if truncated else "")

    def apart(a: Light, b: Light) -> bool:
        return _commits_fit(a, b, settings) and not _files(a) & _files(b)

    sample = _first_couple(lights, by_repository.values(), apart)
    _count(funnel.stage("same file", "couples"), known, len(couples), reason, sample)

    def same_issue(a: Light, b: Light) -> str | None:
        return "same issue" if a.instance_id == b.instance_id else None

    couples = _keep(couples, lights, funnel.stage("other issue", "couples"), same_issue)
    if settings.level != "file":
        stage = funnel.stage("same function or class" if settings.level == "class" else "same function", "couples")
        couples = _keep(couples, lights, stage, lambda a, b: None if shared_place(a, b, settings.level) else "other")
    similarity = similarity_of(lights[index] for couple in couples for index in couple)
    low, high = settings.band

    def unrelated(a: Light, b: Light) -> str | None:
        value = similarity(a, b)
        if seen is not None:
            seen.append(value)
        return "unrelated issues" if value < low else "nearly the same issue" if value > high else None

    couples = _keep(couples, lights, funnel.stage("related issue", "couples"), unrelated)

    def patches(a: Light, b: Light) -> str | None:
        if patch_overlap(a, b) >= settings.alike:
            return "patches alike"
        sizes = sorted((max(1, len(a.added)), max(1, len(b.added))))
        return "one patch much longer" if sizes[1] > settings.patch_ratio * sizes[0] else None

    return _keep(couples, lights, funnel.stage("different patch", "couples"), patches)


def _count(stage: Stage, entered: int, left: int, reason: str, sample: dict[str, Any] | None) -> None:
    stage.keep(left)
    if entered > left:
        stage.drop(reason, sample, count=entered - left)


def _first_couple(
    lights: Sequence[Light], groups: Iterable[Sequence[int]], wanted: Callable[[Light, Light], bool]
) -> dict[str, Any] | None:
    """A couple to read for a stage that counts by arithmetic: the first of a group with another of it."""
    couples = ((group[0], other) for group in groups for other in group[1:])
    for one, other in islice(couples, _LOOKED_AT):
        if wanted(lights[one], lights[other]):
            return {"runs": [lights[one].run_id, lights[other].run_id]}
    return None


def _files(light: Light) -> set[str]:
    return {place[0] for place in light.places}


def _keep(couples: Iterable[Couple], lights: Sequence[Light], stage: Stage, why_not) -> list[Couple]:
    kept = []
    for one, other in couples:
        if reason := why_not(lights[one], lights[other]):
            stage.drop(reason, {"runs": [lights[one].run_id, lights[other].run_id]})
        else:
            stage.keep()
            kept.append((one, other))
    return kept


def _commit_couples(members: Sequence[Light], settings: CascadeSettings) -> int:
    if settings.commit == "any":
        return comb(len(members), 2)
    if settings.commit == "same":
        sizes: dict[str, int] = defaultdict(int)
        for light in members:
            sizes[light.commit] += bool(light.commit)
        return sum(comb(size, 2) for size in sizes.values())
    numbers = sorted(light.number for light in members if light.number is not None)
    count = start = 0
    for end, number in enumerate(numbers):
        while number - numbers[start] > settings.near:
            start += 1
        count += end - start
    return count


def _commits_fit(a: Light, b: Light, settings: CascadeSettings) -> bool:
    if settings.commit == "any":
        return True
    if settings.commit == "same":
        return bool(a.commit) and a.commit == b.commit
    return a.number is not None and b.number is not None and abs(a.number - b.number) <= settings.near


def _same_file(lights: Sequence[Light], settings: CascadeSettings, seed: int) -> tuple[list[Couple], bool]:
    buckets: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, light in enumerate(lights):
        commit = light.commit if settings.commit == "same" else ""
        for file in _files(light):
            buckets[light.repository, commit, file].append(index)
    couples: set[Couple] = set()
    truncated = False
    for members in buckets.values():
        if len(members) > settings.bucket:
            truncated = True
            members = sorted(members, key=lambda index: draw(seed, lights[index].run_id))[: settings.bucket]
        for one, other in combinations(sorted(members), 2):
            if _commits_fit(lights[one], lights[other], settings):
                couples.add((one, other))
    return sorted(couples), truncated


def shared_place(a: Light, b: Light, level: Level) -> tuple[str, str] | None:
    """A (file, symbol) that both runs' patches edit, or None.

    A hunk heading knows only the nearest name, so an unqualified name is equal to any qualified one that ends in it.
    """
    for file, symbol, kind, _ in a.places:
        for other_file, other, other_kind, _ in b.places:
            if file != other_file or "module" in (kind, other_kind):
                continue
            short = min(symbol, other, key=len)
            long = other if short == symbol else symbol
            same = kind == other_kind and (long == short or ("." not in short and long.endswith("." + short)))
            if level == "class":
                same |= symbol.split(".")[0] == other.split(".")[0]
            if same:
                return file, max(symbol, other, key=len)
    return None


def patch_overlap(a: Light, b: Light) -> float:
    """Share of the smaller patch's added lines that the other adds too; 0 when a patch adds nothing of note."""
    smaller = min(len(a.added), len(b.added))
    return len(a.added & b.added) / smaller if smaller else 0.0
