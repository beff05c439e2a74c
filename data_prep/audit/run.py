"""The audit: can the supporting context be told without the evidence?"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from contextrl_verl.pairs import ContrastivePair
from data_prep.audit.baselines import BASELINES
from data_prep.audit.folds import Grouping, splits
from data_prep.audit.links import directions
from data_prep.audit.models import Features, Layout, all_equal, cross_validated, models_for
from data_prep.audit.registry import FeatureGroup, Sees, chosen_groups
from data_prep.audit.result import AuditResult, DomainSummary, GroupRow, ModelScore, Verdict
from data_prep.audit.stats import Spread, cross_validation_factor, z_of
from data_prep.audit.table import Table, read_table
from data_prep.audit.view import AuditError

LEAST_PAIRS = 30
_Scored = tuple[str, str, Sees, dict[str, np.ndarray]]


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
        AuditError: fewer than 30 pairs, unknown groups, options out of range, broken images.
    """
    chosen = chosen_groups(groups)
    _check(folds, repeats, threshold, evidence_threshold, max_pairs)
    table = read_table(pairs, chosen, seed=seed, most=max_pairs, evidence=evidence)
    notes: list[str] = []
    if len(table.rows) < table.read:
        notes.append(
            f"{len(table.rows)} of {table.read} pairs were audited, drawn by couple (max_pairs is {max_pairs})."
        )
    domains = _domains(table, notes)
    scored = [_Domain(table.of_domain(domain), domain, folds, repeats, seed, notes, progress) for domain in domains]
    tests = sum(len(credits) for one in scored for _, _, sees, credits in one.rows if sees != "evidence")
    rows = [row for one in scored for row in one.judged(tests, threshold, evidence_threshold)]
    return AuditResult(
        pairs=table.read,
        audited=len(table.rows),
        seed=seed,
        folds=folds,
        repeats=repeats,
        threshold=threshold,
        evidence_threshold=evidence_threshold,
        tests=tests,
        domains=[one.summary for one in scored],
        rows=rows,
        notes=notes,
    )


def _check(folds: int, repeats: int, threshold: float, evidence_threshold: float | None, max_pairs: int) -> None:
    if folds < 2 or repeats < 1:
        raise AuditError(f"folds is {folds} and repeats is {repeats}. Fix: at least 2 folds and 1 repeat.")
    for name, value in (("threshold", threshold), ("evidence_threshold", evidence_threshold)):
        if value is not None and not 0.5 <= value < 1:
            raise AuditError(f"{name} is {value}. Fix: an accuracy from 0.5 up to (not including) 1, e.g. 0.55.")
    if max_pairs < LEAST_PAIRS:
        raise AuditError(f"max_pairs is {max_pairs}. Fix: at least {LEAST_PAIRS}.")


def _domains(table: Table, notes: list[str]) -> list[str]:
    counts = Counter(row.domain for row in table.rows)
    large = [domain for domain, count in counts.items() if count >= LEAST_PAIRS]
    if not large:
        sizes = ", ".join(f"{domain}: {count}" for domain, count in sorted(counts.items())) or "none"
        raise AuditError(
            f"there are too few pairs to audit (by domain: {sizes}); on fewer than {LEAST_PAIRS} any accuracy from a "
            f"third to two thirds may be luck. Fix: audit at least {LEAST_PAIRS} pairs of one domain, better 400."
        )
    for domain, count in sorted(counts.items()):
        if count < LEAST_PAIRS:
            notes.append(f"domain {domain!r} was not audited: it has {count} pairs, fewer than {LEAST_PAIRS}.")
    return sorted(large)


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
        progress: Callable[[str], None] | None,
    ) -> None:
        self.domain = domain
        self.layout: Layout = table.layout()
        self.grouping = Grouping([row.link for row in table.rows])
        self._seed, self._folds = seed, folds
        largest = int(np.bincount(self.grouping.component).max()) / len(table.rows)
        self.summary = DomainSummary(
            domain=domain,
            pairs=len(table.rows),
            chance=self.layout.chance,
            directions=directions([row.link for row in table.rows], [row.pair_id for row in table.rows]),
            linked=int(self.grouping.component.max()) + 1,
            largest_component=largest,
        )
        runs_apart, couples_apart = (
            [s for r in range(repeats) for s in splits(self.grouping, folds, np.random.default_rng([seed, r]), couples)]
            for couples in (False, True)
        )
        self.rows: list[_Scored] = []
        for number, group in enumerate(table.groups):
            if progress is not None:
                progress(f"{domain}: {group.name}")
            features = table.features(number, self.layout)
            credits = self._credits(group, features, couples_apart if group.memorises else runs_apart)
            self.rows.append((group.name, group.description, group.sees, credits))
        if table.rows[0].overlap is not None:
            self._add_baselines(table)
        self._note(notes, runs_apart)

    def _credits(
        self, group: FeatureGroup, features: Features, splits: list[tuple[np.ndarray, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        if all_equal(features, self.layout):
            return {}
        return {
            model: cross_validated(model, features, self.layout, splits, self._seed_of(group.name, model))
            for model in models_for(features)
        }

    def _seed_of(self, group: str, model: str) -> int:
        return zlib.crc32(f"{self._seed}:{self.domain}:{group}:{model}".encode())

    def _add_baselines(self, table: Table) -> None:
        scores = {
            "overlap: jaccard": table.overlap(0),
            "overlap: tf-idf": table.tf_idf(),
            "overlap: lines": table.overlap(1),
            "overlap: fuzzy": table.overlap(2),
        }
        for name, score in scores.items():
            self.rows.append((name, BASELINES[name], "evidence", {"score": self.layout.credit(score)}))

    def _note(self, notes: list[str], runs_apart: list[tuple[np.ndarray, np.ndarray]]) -> None:
        kept = np.mean([train.sum() / (~test).sum() for train, test in runs_apart if not test.all()] or [0])
        if kept < 0.9:
            notes.append(
                f"{self.domain}: pairs share so many runs that training could use only {kept:.0%} of the pairs outside "
                "a fold; weak shortcuts may be missed."
            )
        found = self.summary.directions
        if found.balanced < 1:
            notes.append(
                f"{self.domain}: in {1 - found.balanced:.0%} of the couples the contexts are not equally often right "
                f"(e.g. pair {found.one_sided[0]!r}), so a run by itself may tell the label."
            )
        if found.same_contexts < 1:
            notes.append(
                f"{self.domain}: in {1 - found.same_contexts:.0%} of the couples a context reads differently in its "
                "directions, so that contexts alone may tell the label; the rows without 'x answer' measure it."
            )

    def judged(self, tests: int, threshold: float, evidence_threshold: float | None) -> list[GroupRow]:
        """The rows with intervals that hold for ``tests`` rows at once."""
        return [self._judge(scored, tests, threshold, evidence_threshold) for scored in self.rows]

    def _judge(self, scored: _Scored, tests: int, threshold: float, evidence_threshold: float | None) -> GroupRow:
        name, description, sees, credits = scored
        usable = next((~np.isnan(credit) for credit in credits.values()), np.zeros(0, bool))
        limit = evidence_threshold if sees == "evidence" else threshold
        row = {"domain": self.domain, "group": name, "description": description, "sees": sees}
        if not usable.any():
            chance = self.layout.chance
            verdict, low, high = ("not tested", 0.0, 1.0) if credits else ("all equal", chance, chance)
            return GroupRow(
                **row, model="none", accuracy=chance, low=low, high=high, chance=chance, limit=None, n=0,
                verdict=verdict, models=[],
            )  # fmt: skip
        chance = float(np.mean(1 / self.layout.sizes[usable]))
        if limit is not None:
            limit = chance + (limit - 0.5) / 0.5 * (1 - chance)
        models = [self._model(model, credit[usable], usable, tests, name) for model, credit in credits.items()]
        best = max(models, key=lambda model: (model.low, model.accuracy))
        return GroupRow(
            **row,
            **best.model_dump(include={"model", "accuracy", "low", "high"}),
            chance=chance,
            limit=limit,
            n=int(usable.sum()),
            verdict=_verdict(best, chance, limit, sees),
            models=models,
        )

    def _model(self, model: str, credit: np.ndarray, usable: np.ndarray, tests: int, name: str) -> ModelScore:
        rng = np.random.default_rng(self._seed_of(name, model))
        factor = 1.0 if model == "score" else cross_validation_factor(self._folds)
        spread = Spread(credit, [self.grouping.couple[usable], self.grouping.component[usable]], rng, factor)
        low, high = spread.interval(z_of(tests))
        low_alone, high_alone = spread.interval(z_of(1))
        return ModelScore(
            model=model, accuracy=spread.accuracy, low=low, high=high, low_alone=low_alone, high_alone=high_alone
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
