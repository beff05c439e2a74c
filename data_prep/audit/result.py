"""What an audit found, for people and programs: a table on the terminal, ``audit.json`` and ``audit.png``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contextrl_verl.pairs.whole_file import write_whole
from data_prep.audit.links import Directions
from data_prep.audit.registry import Sees

Verdict = Literal["at chance", "all equal", "weak", "below chance", "shortcut", "evidence", "overlap", "not tested"]
_STYLES = {"shortcut": "bold red", "overlap": "bold red", "weak": "yellow", "at chance": "green", "all equal": "green"}
_COLOURS = {"shortcut": "#c0392b", "overlap": "#c0392b", "weak": "#e0a100", "evidence": "#7f8c8d"}
_AT_CHANCE = "#2e7d5b"
_NUMBERS = ("accuracy", "interval", "guessing", "pairs")


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
    model: str = "none"
    accuracy: float
    low: float
    high: float
    chance: float
    limit: float | None = None
    n: int = 0
    verdict: Verdict
    models: list[ModelScore] = []

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


def _per_cent(value: float) -> str:
    return f"{100 * value:.1f} %"


def conclusion(result: AuditResult) -> list[str]:
    """What the audit comes to, in sentences."""
    lines = [
        f"{row.domain}: '{row.group}' tells the supporting context in {_per_cent(row.accuracy)} of the pairs "
        f"(guessing: {_per_cent(row.chance)}, limit: {_per_cent(row.limit or 0)})."
        for row in result.shortcuts
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
        least = _per_cent(smallest_seen(result, domain.domain))
        lines.append(f"{domain.domain}: with {domain.pairs} pairs, a shortcut below about {least} may go unseen.")
    return lines


def smallest_seen(result: AuditResult, domain: str) -> float:
    """The accuracy a typical row of the domain needs to fail: the limit, or half an interval above guessing."""
    rows = [r for r in result.rows if r.domain == domain and r.n and r.sees != "evidence"]
    halves = sorted(row.chance + (row.high - row.low) / 2 for row in rows)
    return max([row.limit or 0 for row in rows] + halves[len(halves) // 2 :][:1], default=1.0)


def print_result(result: AuditResult, console: Console) -> None:
    """One table for each domain, then notes and conclusion."""
    for domain in result.domains:
        found = domain.directions
        table = Table(title=escape(f"{domain.domain}: {domain.pairs} pairs of {found.couples} couples"))
        for name in ("group", "sees", *_NUMBERS, "model", "verdict"):
            table.add_column(name, justify="right" if name in _NUMBERS else "left")
        for row in result.rows:
            if row.domain == domain.domain:
                tested = (_per_cent(row.accuracy), f"{100 * row.low:.1f} - {100 * row.high:.1f}") if row.n else ("", "")
                cells = (row.group, row.sees, *tested, _per_cent(row.chance), str(row.n), row.model, row.verdict)
                table.add_row(*map(escape, cells), style=_STYLES.get(row.verdict, ""))
        console.print(table)
        console.print(
            f"all directions in {found.both:.0%} of the couples, balanced in {found.balanced:.0%}, equal contexts in "
            f"{found.same_contexts:.0%}; {domain.linked} groups of linked pairs, the largest with "
            f"{domain.largest_component:.0%} of the pairs",
            highlight=False,
        )
    for line in (*result.notes, *conclusion(result)):
        console.print(line, markup=False, highlight=False)


def write_json(result: AuditResult, path: Path) -> None:
    """The result with its verdict, atomically."""
    record = {
        "passed": result.passed,
        "all_contain_chance": result.all_contain_chance,
        "shortcuts": [{"domain": row.domain, "group": row.group} for row in result.shortcuts],
        **result.model_dump(),
    }
    write_whole(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def write_chart(result: AuditResult, path: Path) -> None:
    """Bars of accuracy with intervals, one panel for each domain, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [[r for r in result.rows if r.domain == d.domain and r.n] for d in result.domains]
    heights = [max(len(rows), 1) for rows in panels]
    figure = Figure(figsize=(8.5, 1.2 * len(panels) + 0.28 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, rows, domain in zip(axes, panels, result.domains, strict=True):
        places, values = range(len(rows)), [100 * row.accuracy for row in rows]
        ends = [(row.accuracy - row.low, row.high - row.accuracy) for row in rows]
        errors = [[100 * max(0.0, pair[side]) for pair in ends] for side in (0, 1)]
        colours = [_COLOURS.get(row.verdict, _AT_CHANCE) for row in rows]
        axis.barh(places, values, xerr=errors, color=colours, height=0.65, error_kw={"lw": 1, "capsize": 2})
        axis.set_yticks(list(places), [row.group for row in rows], fontsize=8, parse_math=False)
        axis.invert_yaxis()
        axis.axvline(100 * domain.chance, color="black", lw=1, label="guessing")
        limit = next((row.limit for row in rows if row.limit is not None and row.sees != "evidence"), None)
        if limit is not None:
            axis.axvline(100 * limit, color="#c0392b", lw=1, ls="--", label="limit")
        axis.set_xlim(0, 100)
        axis.set_xlabel("pairs whose supporting context is told (%)")
        axis.set_title(f"{domain.domain}: {domain.pairs} pairs", fontsize=10, loc="left", parse_math=False)
        axis.legend(loc="upper right", fontsize=7)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=130, format="png")
    write_whole(path, drawn.getvalue())
