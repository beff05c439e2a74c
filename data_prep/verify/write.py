"""The end that all commands that make pairs share: verify the candidates, then write the file whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from contextrl_verl.pairs.files import PairFile, write_pairs
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import PipelineError
from data_prep.models.errors import RemoteError
from data_prep.report.page import Example
from data_prep.verify.rules import RuleSettings
from data_prep.verify.verdict import Judge
from data_prep.verify.verify import Verification, incomplete, verify

# Exit status 1 is a mistake to mend; this one: not all pairs were judged.
UNJUDGED = 3


class UnjudgedError(RemoteError):
    """A part of the pairs was not judged; nothing was written."""

    status = UNJUDGED


@dataclass(frozen=True)
class Judging:
    """What verifies pairs besides the rules.

    Attributes:
        judge: None for rules alone.
        review: JSONL that a person edits: what the judge is uncertain about, and the decisions.
        allow_unjudged: write the rest even if some pairs were not judged.
        progress: show a bar while the judge works.
    """

    judge: Judge | None = None
    review: Path | None = None
    allow_unjudged: bool = False
    progress: bool = True


@dataclass
class Concluded:
    """What came of it.

    Attributes:
        pairs: how many were written.
        verification: decisions in the order of the candidates.
        dropped: some dropped candidates of each reason, to be looked at.
    """

    pairs: int
    verification: Verification
    dropped: list[Example] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says of the judge; empty without one."""
        found = self.verification
        if not found.usage and not found.waiting:
            return {}
        return {"judge": found.usage, "waiting_for_review": found.waiting, "unjudged": found.unjudged}


def conclude(candidates: Path, out: Path, rules: RuleSettings, judging: Judging, funnel: Funnel) -> Concluded:
    """Verify the pairs of ``candidates`` and write those that pass to ``out``.

    Raises:
        UnjudgedError: the judge did not see all pairs, see :class:`Judging`.
        RemoteError: the endpoint cannot be used.
        PipelineError: no pair is left.
    """
    file = PairFile(candidates)
    with tqdm(total=len(file), desc="Judging", unit="pair", disable=not judging.progress or not judging.judge) as bar:
        found = verify(file, judging.judge, rules=rules, review=judging.review, funnel=funnel, progress=bar.update)
    problem = incomplete(found)
    if problem is not None and not judging.allow_unjudged:
        raise UnjudgedError(str(problem))
    funnel.check()
    if not any(decision.kept for decision in found.decisions):
        raise PipelineError(nothing_left(funnel))
    return Concluded(write_pairs(found.kept(file), out), found, _dropped(file, found))


def nothing_left(funnel: Funnel) -> str:
    """The paragraph for an empty result."""
    steps = ", ".join(f"{stage.name}: {stage.entered} in, {stage.left} out" for stage in funnel if stage.entered)
    return (
        f"no pair is left ({steps}). Fix: give more alike sources (runs of several issues of one repository, questions "
        "asked of several images), or loosen the stage that drops most; --help lists them."
    )


def _dropped(file: PairFile, found: Verification, each: int = 1) -> list[Example]:
    wanted: dict[str, list[int]] = {}
    for row, decision in enumerate(found.decisions):
        if not decision.kept and len(rows := wanted.setdefault(decision.reason, [])) < each:
            rows.append(row)
    return [
        Example.of(file[row], "dropped", reason, by=found.decisions[row].by, detail=found.decisions[row].detail)
        for reason, rows in wanted.items()
        for row in rows
    ]


def spread(file: PairFile, count: int = 12, rows: Sequence[int] | None = None) -> Iterator[Example]:
    """``count`` kept pairs from all over a file, or from all over some of its rows."""
    rows = range(len(file)) if rows is None else rows
    return (Example.of(file[row]) for row in islice(rows, 0, None, max(1, len(rows) // count)))
