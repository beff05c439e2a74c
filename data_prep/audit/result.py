"""What an audit found, for people and programs: a table on the terminal and ``audit.json``."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_prep.audit.features import Sees
from data_prep.audit.links import Directions

Verdict = Literal["at chance", "all equal", "weak", "below chance", "shortcut", "evidence", "overlap", "not tested"]
_STYLES = {"shortcut": "bold red", "overlap": "bold red", "weak": "yellow", "at chance": "green", "all equal": "green"}
# Accuracy of two-way pairs above which overlap of words is worth a warning.
_BY_WORDS = 0.8
_NUMBERS = ("accuracy", "interval", "guessing", "pairs")


class ModelScore(BaseModel):
    """One classifier's accuracy; ``low``, ``high`` hold for all rows at once, ``low_alone`` for this one by itself."""

    model: str = "none"
    accuracy: float
    low: float
    high: float
    low_alone: float = 0.0


class GroupRow(ModelScore):
    """One feature group in one domain, by the best of the ``models``; ``chance`` is 1/N, ``n`` the pairs scored.

    It fails with an accuracy above ``limit``, if its interval lies above chance too.
    """

    domain: str
    group: str
    description: str
    sees: Sees
    chance: float
    limit: float | None = None
    n: int = 0
    verdict: Verdict
    models: list[ModelScore] = []


class DomainSummary(BaseModel):
    """Size and make-up of one domain."""

    domain: str
    pairs: int
    chance: float
    directions: Directions


class AuditResult(BaseModel):
    """The audit of a set of pairs, ``audited`` of those that were read: a row for each domain and feature group."""

    pairs: int
    audited: int
    seed: int
    folds: int
    repeats: int
    threshold: float
    evidence_threshold: float | None
    tests: int
    domains: list[DomainSummary]
    rows: list[GroupRow]
    notes: list[str]

    @property
    def shortcuts(self) -> list[GroupRow]:
        """Rows that fail the audit."""
        return [row for row in self.rows if row.verdict in ("shortcut", "overlap")]

    @property
    def by_words(self) -> list[GroupRow]:
        """The best overlap baseline of each domain in which one finds most supporting contexts (80 % of two)."""
        found: dict[str, GroupRow] = {}
        for row in self.rows:
            limit = row.chance + (_BY_WORDS - 0.5) / 0.5 * (1 - row.chance)
            best = found.get(row.domain)
            if row.sees == "evidence" and row.accuracy > max(limit, best.accuracy if best else 0):
                found[row.domain] = row
        return list(found.values())

    @property
    def passed(self) -> bool:
        return not self.shortcuts

    @property
    def all_contain_chance(self) -> bool:
        """Whether the interval of every row that sees no evidence contains guessing."""
        tested = [row for row in self.rows if row.sees != "evidence" and row.verdict != "not tested"]
        return all(row.low <= row.chance <= row.high for row in tested)

    def row(self, group: str) -> GroupRow:
        """The row of a group, of the first domain."""
        return next(row for row in self.rows if row.group == group)

    def smallest_seen(self, domain: str) -> float:
        """The accuracy a typical row of the domain needs to fail: the limit, or half an interval above guessing."""
        rows = [r for r in self.rows if r.domain == domain and r.n and r.sees != "evidence"]
        halves = sorted(row.chance + (row.high - row.low) / 2 for row in rows)
        return max([row.limit or 0 for row in rows] + halves[len(halves) // 2 :][:1], default=1.0)

    def as_json(self) -> str:
        """The result with its verdict."""
        failed = [{"domain": row.domain, "group": row.group} for row in self.shortcuts]
        found = {"passed": self.passed, "all_contain_chance": self.all_contain_chance, "shortcuts": failed}
        return json.dumps(found | self.model_dump(), indent=2, ensure_ascii=False) + "\n"


def conclusion(result: AuditResult) -> list[str]:
    """What the audit comes to, in sentences."""
    lines = [
        f"{row.domain}: '{row.group}' tells the supporting context in {row.accuracy:.1%} of the pairs "
        f"(guessing: {row.chance:.1%}, limit: {row.limit or 0:.1%})."
        for row in result.shortcuts
    ]
    lines += [
        f"Warning: {row.domain}: words in common alone ('{row.group}') tell the supporting context in "
        f"{row.accuracy:.1%} of the pairs, so that they teach to match words. Fix: contexts more alike; of agent runs, "
        "contextrl pairs trajectories with --issue same,counterfactual or a lower --overlap-cap."
        for row in result.by_words
    ]
    if result.all_contain_chance:
        lines.append("Every interval of a group that sees no evidence contains guessing.")
    elif result.passed:
        lines.append("No group beats the limit, but not every interval contains guessing.")
    if weak := [row.group for row in result.rows if row.verdict == "weak"]:
        lines.append(f"Above guessing by themselves, not beyond doubt among {result.tests} tests: {', '.join(weak)}.")
    lines.append(
        f"Intervals hold at 95 % for all {result.tests} tests at once (Bonferroni); they are the wider of Wilson's and "
        "the spread between couples and between runs that hang together."
    )
    for domain in result.domains:
        seen = f"{result.smallest_seen(domain.domain):.1%}"
        lines.append(f"{domain.domain}: with {domain.pairs} pairs, a shortcut below about {seen} may go unseen.")
    return lines


def print_result(result: AuditResult, console: Console) -> None:
    """One table for each domain, then notes and conclusion."""
    for domain in result.domains:
        found = domain.directions
        table = Table(title=escape(f"{domain.domain}: {domain.pairs} pairs of {found.couples} couples"))
        for name in ("group", "sees", *_NUMBERS, "model", "verdict"):
            table.add_column(name, justify="right" if name in _NUMBERS else "left")
        for row in result.rows:
            if row.domain == domain.domain:
                tested = (f"{row.accuracy:.1%}", f"{100 * row.low:.1f} - {100 * row.high:.1f}") if row.n else ("", "")
                cells = (row.group, row.sees, *tested, f"{row.chance:.1%}", str(row.n), row.model, row.verdict)
                table.add_row(*map(escape, cells), style=_STYLES.get(row.verdict, ""))
        console.print(table)
        said = f"all directions in {found.both:.0%} of the couples, balanced in {found.balanced:.0%}, equal contexts in"
        console.print(f"{said} {found.same_contexts:.0%}", highlight=False)
    for line in (*result.notes, *conclusion(result)):
        console.print(line, markup=False, highlight=False)
