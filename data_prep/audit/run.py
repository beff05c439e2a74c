"""The audit: can the supporting context be told without the evidence?"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from data_prep.audit.baselines import BASELINES
from data_prep.audit.groups import chosen_groups
from data_prep.audit.links import Grouping, directions
from data_prep.audit.models import cross_validated, models_for
from data_prep.audit.registry import FeatureGroup, Sees
from data_prep.audit.result import AuditResult, DomainSummary, GroupRow, ModelScore, Verdict
from data_prep.audit.stats import cluster_error, interval
from data_prep.audit.table import Table, read_table

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
    progress: Callable[[str], None] | None = None,
) -> AuditResult:
    """Look for shortcuts in pairs of any origin, domain by domain.

    Args:
        pairs: read once, one at a time.
        groups: names of feature groups, or groups; all registered ones for None.
        folds, repeats: of cross-validation; repeats differ in their folds.
        threshold: accuracy of two-way pairs above which a row fails; for N contexts the same part of the way from 1/N
            to 1.
        evidence: whether to compute the overlap baselines, which see query and answer.
        evidence_threshold: accuracy above which such a baseline fails; None: never.
        max_pairs: larger sets are sampled by couple.
        progress: called with the name of each step.

    Raises:
        ConfigError: fewer than 30 pairs, unknown groups, options out of range, broken images.
    """
    chosen = chosen_groups(groups)
    _check(folds, repeats, threshold, evidence_threshold, max_pairs)
    table = read_table(pairs, chosen, seed=seed, most=max_pairs, evidence=evidence)
    audited, notes = len(table.rows), []
    if audited < table.read:
        notes.append(f"{audited} of {table.read} pairs were audited, drawn by couple (max_pairs is {max_pairs}).")
    domains = [
        _Domain(table.of_domain(domain), domain, folds, repeats, seed, notes, progress or (lambda step: None))
        for domain in _domains(table, notes)
    ]
    tests = sum(len(row.credits) for domain in domains for row in domain.scored if row.sees != "evidence")
    limits: dict[Sees, float | None] = {"form": threshold, "one side": threshold, "evidence": evidence_threshold}
    return AuditResult(
        pairs=table.read, audited=audited, seed=seed, folds=folds, repeats=repeats,
        threshold=threshold, evidence_threshold=evidence_threshold, tests=tests,
        domains=[domain.summary for domain in domains],
        rows=[domain.judged(row, tests, limits[row.sees]) for domain in domains for row in domain.scored],
        notes=notes,
    )  # fmt: skip


def _check(folds: int, repeats: int, threshold: float, evidence_threshold: float | None, max_pairs: int) -> None:
    if folds < 2 or repeats < 1:
        raise ConfigError(f"folds is {folds} and repeats is {repeats}. Fix: at least 2 folds and 1 repeat.")
    for name, value in (("threshold", threshold), ("evidence_threshold", evidence_threshold)):
        if value is not None and not 0.5 <= value < 1:
            raise ConfigError(f"{name} is {value}. Fix: an accuracy from 0.5 up to (not including) 1, e.g. 0.55.")
    if max_pairs < LEAST_PAIRS:
        raise ConfigError(f"max_pairs is {max_pairs}. Fix: at least {LEAST_PAIRS}.")


def _domains(table: Table, notes: list[str]) -> list[str]:
    counts = Counter(row.domain for row in table.rows)
    large = sorted(domain for domain, count in counts.items() if count >= LEAST_PAIRS)
    if not large:
        sizes = ", ".join(f"{domain}: {count}" for domain, count in sorted(counts.items())) or "none"
        raise ConfigError(
            f"there are too few pairs to audit (by domain: {sizes}); on fewer than {LEAST_PAIRS} any accuracy from a "
            f"third to two thirds may be luck. Fix: audit at least {LEAST_PAIRS} pairs of one domain, better 400."
        )
    for domain, count in sorted(counts.items()):
        if count < LEAST_PAIRS:
            notes.append(f"domain {domain!r} was not audited: it has {count} pairs, fewer than {LEAST_PAIRS}.")
    return large


class _Scored(NamedTuple):
    """What a group got: [pairs] credits of each model; no model where all contexts are equal."""

    name: str
    description: str
    sees: Sees
    credits: dict[str, np.ndarray]


class _Domain:
    """Credits of all groups on the pairs of one domain."""

    def __init__(
        self,
        table: Table,
        domain: str,
        folds: int,
        repeats: int,
        seed: int,
        notes: list[str],
        progress: Callable[[str], None],
    ) -> None:
        self.layout = table.layout()
        self.grouping = Grouping([row.link for row in table.rows])
        self._folds = folds
        components = np.bincount(self.grouping.component)
        self.summary = DomainSummary(
            domain=domain,
            pairs=len(table.rows),
            chance=self.layout.chance,
            directions=directions([row.link for row in table.rows], [row.pair_id for row in table.rows]),
            linked=len(components),
            largest_component=int(components.max()) / len(table.rows),
        )
        runs_apart, couples_apart = (
            [s for r in range(repeats) for s in self.grouping.splits(folds, np.random.default_rng([seed, r]), couples)]
            for couples in (False, True)
        )
        self.scored: list[_Scored] = []
        for number, group in enumerate(table.groups):
            progress(f"{domain}: {group.name}")
            features, splits = table.features(number), couples_apart if group.memorises else runs_apart
            credits = {
                model: cross_validated(
                    model, features, self.layout, splits, zlib.crc32(f"{seed}:{domain}:{group.name}:{model}".encode())
                )
                for model in models_for(features, self.layout)
            }
            self.scored.append(_Scored(group.name, group.description, group.sees, credits))
        for name, scores in table.baselines().items():
            self.scored.append(_Scored(name, BASELINES[name], "evidence", {"score": self.layout.credit(scores)}))
        notes += self._notes(float(np.mean([train.sum() / max((~test).sum(), 1) for train, test in runs_apart])))

    def _notes(self, kept: float) -> list[str]:
        found, domain, notes = self.summary.directions, self.summary.domain, []
        if kept < 0.9:
            notes.append(
                f"{domain}: pairs share so many runs that training could use only {kept:.0%} of the pairs outside "
                "a fold; weak shortcuts may be missed."
            )
        if found.balanced < 1:
            notes.append(
                f"{domain}: in {1 - found.balanced:.0%} of the couples the contexts are not equally often right "
                f"(e.g. pair {found.one_sided[0]!r}), so a run by itself may tell the label."
            )
        if found.same_contexts < 1:
            notes.append(
                f"{domain}: in {1 - found.same_contexts:.0%} of the couples a context reads differently in its "
                "directions, so that contexts alone may tell the label; the rows without 'x answer' measure it."
            )
        return notes

    def judged(self, scored: _Scored, tests: int, limit: float | None) -> GroupRow:
        """The row of a group, with intervals that hold for ``tests`` rows at once; ``limit`` is of two contexts."""
        row = dict(domain=self.summary.domain, group=scored.name, description=scored.description, sees=scored.sees)
        usable = next((~np.isnan(credit) for credit in scored.credits.values()), np.zeros(0, bool))
        if not usable.any():
            chance = self.layout.chance
            verdict, low, high = ("not tested", 0.0, 1.0) if scored.credits else ("all equal", chance, chance)
            return GroupRow(**row, accuracy=chance, low=low, high=high, chance=chance, verdict=verdict)
        chance = float(np.mean(1 / self.layout.sizes[usable]))
        if limit is not None:
            limit = chance + (limit - 0.5) / 0.5 * (1 - chance)
        models = [self._model(model, credit[usable], usable, tests) for model, credit in scored.credits.items()]
        best = max(models, key=lambda model: (model.low, model.accuracy))
        return GroupRow(
            **row,
            **best.model_dump(include={"model", "accuracy", "low", "high"}),
            chance=chance,
            limit=limit,
            n=int(usable.sum()),
            verdict=_verdict(best, chance, limit, scored.sees),
            models=models,
        )

    def _model(self, model: str, credit: np.ndarray, usable: np.ndarray, tests: int) -> ModelScore:
        error = cluster_error(credit, [self.grouping.couple[usable], self.grouping.component[usable]])
        if model != "score":
            # The folds' models share training pairs, so the error is larger. Nadeau and Bengio (2003) take the variance
            # of a mean over J folds as (1/J + test/training) instead of 1/J of a fold's. Measured on pairs without a
            # shortcut, the plain error is too small by a quarter, and every sixth such audit would raise an alarm.
            error *= float(np.sqrt(1 + self._folds / (self._folds - 1)))
        accuracy = float(credit.mean())
        (low, high), (low_alone, high_alone) = (interval(accuracy, len(credit), error, many) for many in (tests, 1))
        return ModelScore(
            model=model, accuracy=accuracy, low=low, high=high, low_alone=low_alone, high_alone=high_alone
        )


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
