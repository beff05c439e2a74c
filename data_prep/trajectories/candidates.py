"""The paper's cascade on light records: couples of runs alike in everything but the evidence; and couples of runs of
one and the same issue.

Couples are never enumerated beyond runs that edited the same file or worked on the same instance; what the first stages
drop is counted by arithmetic, so the funnel is complete without it.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product, takewhile
from math import comb
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from contextrl_verl.pairs.whole_file import whole_file
from data_prep.common.funnel import Funnel
from data_prep.common.splits import draw
from data_prep.models.spec import load_sentence_encoder
from data_prep.trajectories.passes import Light, stored_run
from data_prep.trajectories.run import TrajectoryError

Level = Literal["file", "class", "function"]
# Issues of a couple: other ones, similar or not; or one and the same.
Kind = Literal["related", "any", "same"]
Couple = tuple[int, int]
Similarity = Callable[[Light, Light], float]
WORDS_BAND = (0.02, 0.8)
# Couples gone through for a sample of what was counted by arithmetic.
_LOOKED_AT = 20_000
# An encoder reads a few hundred tokens; the rest of an issue is cut by it anyway.
_READ = 8_000


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

    commit: Literal["same", "near", "any"] = "same"
    near: Annotated[int, Field(ge=0)] = 500
    level: Level = "class"
    related: tuple[float, float] | None = None
    alike: float = 0.5
    patch_ratio: Annotated[float, Field(ge=1)] = 2.0
    bucket: Annotated[int, Field(ge=2)] = 400


def shared_words(lights: Iterable[Light]) -> Similarity:
    """How related two issues are by their words: cosine of log(1 + count) * idf vectors, 0 (no word in common) to 1.

    idf is counted among the issues given, one of each instance.
    """
    issues = {light.instance_id: light.words for light in lights}
    every = np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in issues.values())])
    known, documents = np.unique(every, return_counts=True)
    idf = np.log((1 + len(issues)) / (1 + documents)) + 1.0
    vectors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for instance, (ids, counts) in issues.items():
        weights = np.log1p(counts) * idf[np.searchsorted(known, ids)]
        vectors[instance] = ids, weights / (float(np.linalg.norm(weights)) or 1.0)

    def similarity(one: Light, other: Light) -> float:
        (ids_a, a), (ids_b, b) = vectors[one.instance_id], vectors[other.instance_id]
        _, at_a, at_b = np.intersect1d(ids_a, ids_b, assume_unique=True, return_indices=True)
        return float(min(1.0, a[at_a] @ b[at_b]))

    return similarity


def embedded(lights: Iterable[Light], model: str, folder: Path, *, progress: bool = True) -> Similarity:
    """How related two issues are by an encoder: cosine of its vectors; the issue of every instance is embedded once.

    ``model`` is the name or folder of a sentence-transformers model; code that comes with a model is not run. Vectors
    are kept in ``folder``, so that a killed job does not compute them again.

    Raises:
        TrajectoryError: the library is not installed, or the model cannot be loaded.
    """
    first = {light.instance_id: light.stored for light in sorted(lights, key=lambda light: light.stored)[::-1]}
    wanted = sorted(first)
    name = hashlib.blake2b(json.dumps([model, wanted]).encode(), digest_size=8).hexdigest()
    file = folder / f"issues-{name}.npy"
    if not file.exists():
        encoder = load_sentence_encoder(model, "--related-model", TrajectoryError)
        issues = [stored_run(*first[instance]).issue[:_READ] for instance in wanted]
        found = encoder.encode(issues, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=progress)
        with whole_file(file) as path, path.open("wb") as stream:
            np.save(stream, found.astype(np.float32), allow_pickle=False)
    vectors = dict(zip(wanted, np.load(file, allow_pickle=False), strict=True))
    return lambda one, other: float(vectors[one.instance_id] @ vectors[other.instance_id])


def find_couples(
    lights: Sequence[Light],
    settings: CascadeSettings,
    funnel: Funnel,
    kinds: Collection[str] = ("related",),
    similarity_of: Callable[[Iterable[Light]], Similarity] = shared_words,
    seen: array[float] | None = None,
    seed: int = 1,
) -> dict[Couple, Kind]:
    """Couples that pass every stage, as ascending indices, in a fixed order, with their kind; counts go to ``funnel``.

    ``similarity_of`` makes the similarity of two issues from the runs that are still in some couple; ``seen`` gets
    every one that was asked for. ``seed`` draws the runs of a file or an instance that has too many. A couple that is
    both ``related`` and ``any`` is the former.
    """
    found: dict[Couple, Kind] = {}
    if "related" in kinds or "any" in kinds:
        found |= _other_issue(lights, settings, funnel, kinds, similarity_of, seen, seed)
    if "same" in kinds:
        found |= _same_issue(lights, settings, funnel, seed)
    return found


def _other_issue(
    lights: Sequence[Light],
    settings: CascadeSettings,
    funnel: Funnel,
    kinds: Collection[str],
    similarity_of: Callable[[Iterable[Light]], Similarity],
    seen: array[float] | None,
    seed: int,
) -> dict[Couple, Kind]:
    repositories: dict[str, list[Light]] = defaultdict(list)
    for light in lights:
        repositories[light.repository].append(light)
    inside = sum(comb(len(members), 2) for members in repositories.values())
    known = sum(_commit_couples(members, settings) for members in repositories.values())
    couples, truncated = _same_file(lights, settings, seed)

    def counted(
        name: str, entered: int, left: int, reason: str, groups: Iterable[Sequence[Light]], example: Any
    ) -> None:
        """A stage whose couples are never gone through, with the first of them to look at for which ``example``."""
        stage = funnel.stage(name, "couples")
        stage.keep(left)
        if entered > left:
            firsts = ((group[0], other) for group in groups for other in group[1:])
            shown = next((couple for couple in islice(firsts, _LOOKED_AT) if example(*couple)), None)
            stage.drop(reason, shown and {"runs": [light.run_id for light in shown]}, entered - left)

    far = {"same": "other or unknown commit", "near": f"more than {settings.near} apart", "any": ""}[settings.commit]
    apart = "no file in common" + (f", or only one that over {settings.bucket} runs edit" if truncated else "")
    every, groups = comb(len(lights), 2), repositories.values()
    counted("same repository", every, inside, "other repository", [lights], lambda a, b: a.repository != b.repository)
    counted("commit", inside, known, far, groups, lambda a, b: not _commits_fit(a, b, settings))
    counted("same file", known, len(couples), apart, groups,
            lambda a, b: _commits_fit(a, b, settings) and not a.files & b.files)  # fmt: skip

    def keep(name: str, why_not: Callable[[Light, Light], str | None]) -> None:
        stage, kept = funnel.stage(name, "couples"), []
        for one, other in couples:
            if reason := why_not(lights[one], lights[other]):
                stage.drop(reason, {"runs": [lights[one].run_id, lights[other].run_id]})
            else:
                stage.keep()
                kept.append((one, other))
        couples[:] = kept

    def unrelated(a: Light, b: Light) -> str | None:
        value = similarity(a, b)
        if seen is not None:
            seen.append(value)
        reason = "unrelated issues" if value < low else "nearly the same issue" if value > high else None
        if reason is None and "related" in kinds:
            related.add((a.run_id, b.run_id))
        return None if "any" in kinds else reason

    keep("other issue", lambda a, b: "same issue" if a.instance_id == b.instance_id else None)
    if settings.level != "file":
        name = {"class": "same function or class", "function": "same function"}[settings.level]
        keep(name, lambda a, b: None if shared_place(a, b, settings.level) else "other")
    similarity = similarity_of(lights[index] for couple in couples for index in couple)
    low, high = settings.related or WORDS_BAND
    related: set[tuple[str, str]] = set()
    keep("related issue", unrelated)
    keep("different patch", lambda a, b: _same_answer(a, b, settings))
    return {
        (one, other): "related" if (lights[one].run_id, lights[other].run_id) in related else "any"
        for one, other in couples
    }


def _same_issue(lights: Sequence[Light], settings: CascadeSettings, funnel: Funnel, seed: int) -> dict[Couple, Kind]:
    """Couples of runs of one instance whose patches differ, wherever these edit, whatever became of them."""
    instances: dict[str, list[int]] = defaultdict(list)
    for index, light in enumerate(lights):
        instances[light.instance_id].append(index)
    every, drawn = (
        [sorted(members, key=lambda index: draw(seed, lights[index].run_id))[:most] for members in instances.values()]
        for most in (None, settings.bucket)
    )
    inside, left = (sum(comb(len(members), 2) for members in groups) for groups in (every, drawn))
    stage = funnel.stage("same instance", "couples")
    stage.keep(left)
    if other := comb(len(lights), 2) - inside:
        stage.drop("other instance", count=other)
    if inside > left:
        stage.drop(f"not among the {settings.bucket} runs drawn of an instance", count=inside - left)
    stage, couples = funnel.stage("same instance, different patch", "couples"), []
    for one, other in (couple for members in drawn for couple in combinations(sorted(members), 2)):
        # Two patches that add nothing of note most likely take out the same lines.
        nothing = "patches alike" if lights[one].added == lights[other].added else None
        if reason := nothing or _same_answer(lights[one], lights[other], settings):
            stage.drop(reason, {"runs": [lights[one].run_id, lights[other].run_id]})
        else:
            stage.keep()
            couples.append((one, other))
    return dict.fromkeys(sorted(couples), "same")


def _same_answer(a: Light, b: Light, settings: CascadeSettings) -> str | None:
    """Why two patches do not make a couple: they are alike, or their size would tell which is whose."""
    if patch_overlap(a, b) >= settings.alike:
        return "patches alike"
    sizes = sorted((max(1, len(a.added)), max(1, len(b.added))))
    return "one patch much longer" if sizes[1] > settings.patch_ratio * sizes[0] else None


def _commit_couples(members: Sequence[Light], settings: CascadeSettings) -> int:
    """How many couples of one repository fit by their commits, without going through them."""
    if settings.commit == "any":
        return comb(len(members), 2)
    if settings.commit == "same":
        sizes = Counter(light.commit for light in members if light.commit)
        return sum(comb(size, 2) for size in sizes.values())
    numbers = sorted(light.number for light in members if light.number is not None)
    return sum(bisect_right(numbers, number + settings.near) - index - 1 for index, number in enumerate(numbers))


def _commits_fit(a: Light, b: Light, settings: CascadeSettings) -> bool:
    if settings.commit == "same":
        return bool(a.commit) and a.commit == b.commit
    if settings.commit == "near":
        return a.number is not None and b.number is not None and abs(a.number - b.number) <= settings.near
    return True


def _same_file(lights: Sequence[Light], settings: CascadeSettings, seed: int) -> tuple[list[Couple], bool]:
    """Couples of one repository and file whose commits fit, and whether the runs of some file had to be drawn."""
    buckets: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, light in enumerate(lights):
        commit = light.commit if settings.commit == "same" else ""
        for file in light.files:
            buckets[light.repository, commit, file].append(index)
    couples: set[Couple] = set()
    for members in buckets.values():
        drawn = sorted(members, key=lambda index: draw(seed, lights[index].run_id))[: settings.bucket]
        pairs = combinations(sorted(drawn), 2)
        couples.update((one, other) for one, other in pairs if _commits_fit(lights[one], lights[other], settings))
    return sorted(couples), any(len(members) > settings.bucket for members in buckets.values())


def shared_place(a: Light, b: Light, level: Level) -> tuple[str, str] | None:
    """A (file, symbol) that both runs' patches edit, or None: best the same function, else what is around both edits.

    A hunk heading knows only the nearest name, so an unqualified name is equal to any qualified one that ends in it.
    """
    around = None
    for (file, symbol, kind), (other_file, other, other_kind) in product(a.places, b.places):
        if file != other_file or "module" in (kind, other_kind):
            continue
        short, long = sorted((symbol, other), key=len)
        if kind == other_kind and (long == short or ("." not in short and long.endswith("." + short))):
            return file, long
        parts = zip(symbol.split("."), other.split("."), strict=False)
        both = [part for part, _ in takewhile(lambda pair: pair[0] == pair[1], parts)]
        if level == "class" and both:
            around = around or (file, ".".join(both))
    return around


def patch_overlap(a: Light, b: Light) -> float:
    """Share of the smaller patch's added lines that the other adds too; 0 when a patch adds nothing of note."""
    smaller = min(len(a.added), len(b.added))
    return len(a.added & b.added) / smaller if smaller else 0.0
