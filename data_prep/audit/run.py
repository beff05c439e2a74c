"""The audit: can the supporting context be told without the evidence?"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from data_prep.audit.features import FeatureGroup, Sees, chosen_groups
from data_prep.audit.links import Grouping, directions
from data_prep.audit.models import Features, Layout, cross_validated, models_for
from data_prep.audit.result import AuditResult, DomainSummary, GroupRow, ModelScore, Verdict
from data_prep.audit.stats import cluster_error, interval
from data_prep.audit.table import ALONE, BASELINES, Row, baseline_scores, features_of, read_table

LEAST_PAIRS = 30


def audit(
    pairs: Iterable[ContrastivePair],
    groups: Iterable[str | FeatureGroup] | None = None,
    seed: int = 0,
    folds: int = 5,
    threshold: float = 0.55,
    *,
    repeats: int = 3,
    evidence: bool = True,
    evidence_threshold: float | None = None,
    max_pairs: int = 10_000,
    workers: int | None = 1,
    progress: Callable[[str], None] = lambda step: None,
) -> AuditResult:
    """Look for shortcuts in pairs of any origin, domain by domain; where a provenance names several kinds of pairs in a
    domain, kind by kind.

    Args:
        pairs: read once, one at a time; more than ``max_pairs`` are sampled by couple.
        groups: names of feature groups, or groups; all registered ones for None.
        folds, repeats: of cross-validation, 2 folds and 1 repeat at least; repeats differ in their folds.
        threshold: accuracy of two-way pairs above which a row fails; for N contexts the same part of the way from 1/N
            to 1.
        evidence: whether to compute the overlap baselines, which see query and answer.
        evidence_threshold: accuracy above which such a baseline fails; None: never.
        workers: processes, None for all cores; the result does not depend on it.
        progress: called with the name of each step.

    Raises:
        ConfigError: fewer than 30 pairs, unknown groups, broken images.
    """
    chosen = chosen_groups(groups)
    workers = workers or os.cpu_count() or 1
    rows, read, frequencies = read_table(pairs, chosen, seed=seed, most=max_pairs, evidence=evidence, workers=workers)
    notes: list[str] = []
    if len(rows) < read:
        notes.append(f"{len(rows)} of {read} pairs were audited, drawn by couple (max_pairs is {max_pairs}).")
    domains = [_Domain(name, of_name, folds, repeats, seed) for name, of_name in _large(rows, notes)]
    tried = ((found, group, found.trial(number, group)) for found in domains for number, group in enumerate(chosen))
    for found, group, credits in _done(tried, 1 if len(rows) <= ALONE else workers):
        progress(f"{found.summary.domain}: {group.name}")
        found.credits.append((group.name, group.description, group.sees, credits))
    for found in domains:
        for name, scores in baseline_scores(found.rows, frequencies).items():
            found.credits.append((name, BASELINES[name], "evidence", {"score": found.layout.credit(scores)}))
        notes += found.notes()
    tests = sum(len(credits) for one in domains for *_, sees, credits in one.credits if sees != "evidence")
    limits: dict[Sees, float | None] = {"form": threshold, "one side": threshold, "evidence": evidence_threshold}
    return AuditResult(
        pairs=read, audited=len(rows), seed=seed, folds=folds, repeats=repeats, threshold=threshold,
        evidence_threshold=evidence_threshold, tests=tests, notes=notes, domains=[one.summary for one in domains],
        rows=[row for one in domains for row in one.judged(tests, limits)],
    )  # fmt: skip


def _large(rows: Sequence[Row], notes: list[str]) -> list[tuple[str, list[Row]]]:
    """Domains, or kinds of pairs in a domain with several, that have enough pairs; the others are noted."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        kinds[row.domain].add(row.kind)
    named: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        named[row.domain if len(kinds[row.domain]) == 1 else f"{row.domain}, {row.kind or 'other'}"].append(row)
    counts = {name: len(found) for name, found in sorted(named.items())}
    if max(counts.values(), default=0) < LEAST_PAIRS:
        sizes = ", ".join(f"{domain}: {count}" for domain, count in counts.items()) or "none"
        raise ConfigError(
            f"there are too few pairs to audit (by domain: {sizes}); on fewer than {LEAST_PAIRS} any accuracy from a "
            f"third to two thirds may be luck. Fix: audit at least {LEAST_PAIRS} pairs of one domain, better 400."
        )
    small = {domain: count for domain, count in counts.items() if count < LEAST_PAIRS}
    for domain, count in small.items():
        notes.append(f"domain {domain!r} was not audited: it has {count} pairs, fewer than {LEAST_PAIRS}.")
    return [(name, named[name]) for name in counts if name not in small]


class _Trial(NamedTuple):
    """One group on one domain: the models that take its numbers, each with its seed, and what they are trained on."""

    models: dict[str, int]
    features: Features
    layout: Layout
    splits: list[tuple[np.ndarray, np.ndarray]]

    def credits(self) -> dict[str, np.ndarray]:
        """[pairs] credits by model."""
        given = (self.features, self.layout, self.splits)
        return {model: cross_validated(model, *given, seed) for model, seed in self.models.items()}


def _done(
    tried: Iterable[tuple[_Domain, FeatureGroup, _Trial]], workers: int
) -> Iterator[tuple[_Domain, FeatureGroup, dict[str, np.ndarray]]]:
    if workers == 1:
        yield from ((found, group, trial.credits()) for found, group, trial in tried)
        return
    from joblib import Parallel, delayed

    # The features of a group are made when a process is free for it, and not kept.
    given: deque[tuple[_Domain, FeatureGroup]] = deque()

    def jobs() -> Iterator[Any]:
        for found, group, trial in tried:
            given.append((found, group))
            yield delayed(trial.credits)()

    for credits in Parallel(n_jobs=workers, return_as="generator")(jobs()):
        yield *given.popleft(), credits


class _Domain:
    """The pairs of one domain, and what each group got.

    Attributes:
        credits: (name, description, sees, [pairs] credits by model) of each group; no model where contexts are equal.
    """

    def __init__(self, domain: str, rows: list[Row], folds: int, repeats: int, seed: int) -> None:
        self.rows, self._folds, self._seed = rows, folds, seed
        links = [row.link for row in rows]
        self.layout, self.grouping = Layout([len(row.link.names) for row in rows]), Grouping(links)
        found = directions(links, [row.pair_id for row in rows])
        chance = float(np.mean(1 / self.layout.sizes))
        self.summary = DomainSummary(domain=domain, pairs=len(rows), chance=chance, directions=found)
        # Folds share no run, or (for what memorises) no couple.
        self._splits: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {False: [], True: []}
        for couples, splits in self._splits.items():
            for repeat in range(repeats):
                splits += self.grouping.splits(folds, np.random.default_rng([seed, repeat]), couples)
        self.credits: list[tuple[str, str, Sees, dict[str, np.ndarray]]] = []

    def trial(self, number: int, group: FeatureGroup) -> _Trial:
        """What is to be trained on the group's numbers."""
        features = features_of(self.rows, number, group.wide)
        named = f"{self._seed}:{self.summary.domain}:{group.name}"
        seeds = {model: zlib.crc32(f"{named}:{model}".encode()) for model in models_for(features, self.layout)}
        return _Trial(seeds, features, self.layout, self._splits[group.memorises])

    def notes(self) -> list[str]:
        """What a reader of the rows must know."""
        found, notes = self.summary.directions, []
        kept = float(np.mean([train.sum() / max((~test).sum(), 1) for train, test in self._splits[False]]))
        if kept < 0.9:
            notes.append(
                f"pairs share so many runs that training could use only {kept:.0%} of the pairs outside a fold; weak "
                "shortcuts may be missed."
            )
        if found.balanced < 1:
            notes.append(
                f"in {1 - found.balanced:.0%} of the couples the contexts are not equally often right (e.g. pair "
                f"{found.one_sided[0]!r}), so a run by itself may tell the label."
            )
        if found.same_contexts < 1:
            notes.append(
                f"in {1 - found.same_contexts:.0%} of the couples a context reads differently in its directions, so "
                "that contexts alone may tell the label; the rows without 'x answer' measure it."
            )
        return [f"{self.summary.domain}: {note}" for note in notes]

    def judged(self, tests: int, limits: dict[Sees, float | None]) -> Iterable[GroupRow]:
        """A row for each group, with intervals that hold for ``tests`` rows at once; limits are of two contexts."""
        for group, text, sees, credits in self.credits:
            row = dict(domain=self.summary.domain, group=group, description=text, sees=sees)
            usable = next((~np.isnan(credit) for credit in credits.values()), np.zeros(0, bool))
            if not usable.any():
                chance = self.summary.chance
                verdict, low, high = ("not tested", 0.0, 1.0) if credits else ("all equal", chance, chance)
                yield GroupRow(**row, accuracy=chance, low=low, high=high, chance=chance, verdict=verdict)
                continue
            chance, limit = float(np.mean(1 / self.layout.sizes[usable])), limits[sees]
            if limit is not None:
                limit = chance + (limit - 0.5) / 0.5 * (1 - chance)
            models = [self._score(model, credit[usable], usable, tests) for model, credit in credits.items()]
            best = max(models, key=lambda model: (model.low, model.accuracy))
            judged = {"verdict": _verdict(best, chance, limit, sees), "models": models, "n": int(usable.sum())}
            yield GroupRow(**row, **best.model_dump(), chance=chance, limit=limit, **judged)

    def _score(self, model: str, credit: np.ndarray, usable: np.ndarray, tests: int) -> ModelScore:
        error = cluster_error(credit, [self.grouping.couple[usable], self.grouping.component[usable]])
        if model != "score":
            # The folds' models share training pairs, so the error is larger. Nadeau and Bengio (2003) take the variance
            # of a mean over J folds as (1/J + test/training) instead of 1/J of a fold's. Measured on pairs without a
            # shortcut, the plain error is too small by a quarter, and every sixth such audit would raise an alarm.
            error *= float(np.sqrt(1 + self._folds / (self._folds - 1)))
        accuracy = float(credit.mean())
        (low, high), (low_alone, _) = (interval(accuracy, len(credit), error, many) for many in (tests, 1))
        return ModelScore(model=model, accuracy=accuracy, low=low, high=high, low_alone=low_alone)


def _verdict(score: ModelScore, chance: float, limit: float | None, sees: Sees) -> Verdict:
    fails = score.low > chance and limit is not None and score.accuracy > limit
    if sees == "evidence":
        return "overlap" if fails else "evidence"
    if fails:
        return "shortcut"
    if score.high < chance:
        return "below chance"
    # For one row by itself this would be a finding; among many it may be luck.
    return "weak" if score.low_alone > chance else "at chance"
