"""What an audit found."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from data_prep.audit.links import Directions
from data_prep.audit.registry import Sees

Verdict = Literal["at chance", "all equal", "weak", "below chance", "shortcut", "evidence", "overlap", "not tested"]


class ModelScore(BaseModel):
    """One classifier's accuracy; ``low``, ``high`` hold for all rows at once, ``*_alone`` for this one by itself."""

    model: str
    accuracy: float
    low: float
    high: float
    low_alone: float
    high_alone: float


class GroupRow(BaseModel):
    """One feature group in one domain, by the classifier that does best.

    Attributes:
        chance: accuracy of guessing, 1/N.
        limit: accuracy above which the row fails, if its interval lies above chance too.
        n: pairs that were held out and scored.
        models: every classifier's score.
    """

    domain: str
    group: str
    description: str
    sees: Sees
    model: str
    accuracy: float
    low: float
    high: float
    chance: float
    limit: float | None
    n: int
    verdict: Verdict
    models: list[ModelScore]

    @property
    def contains_chance(self) -> bool:
        """Whether the interval contains guessing."""
        return self.low <= self.chance <= self.high


class DomainSummary(BaseModel):
    """Size and make-up of one domain."""

    domain: str
    pairs: int
    chance: float
    directions: Directions
    linked: int
    largest_component: float


class AuditResult(BaseModel):
    """The audit of a set of pairs.

    Attributes:
        pairs: read; ``audited`` of them were looked at.
        rows: one for each domain and feature group.
        notes: anything a reader of the rows must know.
    """

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
    def passed(self) -> bool:
        """Whether no row fails."""
        return not self.shortcuts

    @property
    def all_contain_chance(self) -> bool:
        """Whether the interval of every row that sees no evidence contains guessing."""
        return all(r.contains_chance for r in self.rows if r.sees != "evidence" and r.verdict != "not tested")

    def row(self, group: str, domain: str | None = None) -> GroupRow:
        """The row of a group; of the first domain unless named."""
        return next(r for r in self.rows if r.group == group and domain in (None, r.domain))
