"""Verifies a whole set (rules, then a judge if there is one, then what a person decided), and writes what passes.

A couple stands or falls as a whole: if one of its directions is dropped, the others would tell the label.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair, PairFormatError
from contextrl_verl.pairs.files import PairFile, write_pairs
from data_prep.common.funnel import Funnel
from data_prep.common.image_bytes import with_bytes
from data_prep.common.pipeline import PipelineError
from data_prep.models.endpoint import answers
from data_prep.report.page import Example
from data_prep.verify.judge import Judge, Judgement, OpenAIJudge
from data_prep.verify.review import apply_review, read_review, write_review
from data_prep.verify.rules import Facts, RuleSettings, content_of, facts_of, rules_over_all

# Exit status 1 is a mistake to mend; this one: not all pairs were judged.
UNJUDGED = 3


class UnjudgedError(ConfigError):
    """A part of the pairs was not judged; nothing was written."""

    status = UNJUDGED


@dataclass(frozen=True)
class Decision:
    """What becomes of a pair.

    Attributes:
        kept: whether it goes on.
        by: ``rules``, ``judge``, ``person`` or ``couple`` (another direction was dropped).
        reason: short, for counting; ``detail`` is the judge's own sentence.
        label: the judge's or the person's; None if nobody was asked.
    """

    pair_id: str
    kept: bool
    by: str
    reason: str = ""
    detail: str = ""
    label: str | None = None


@dataclass
class Verification:
    """Decisions in the order of the pairs.

    Attributes:
        unjudged: how many pairs a judge was to see and did not, by cause; the set is incomplete if there are any.
        waiting: lines of the review file without a decision.
        usage: the judge's counts.
    """

    decisions: list[Decision]
    unjudged: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    usage: dict[str, Any] = field(default_factory=dict)

    def kept(self, pairs: Iterable[ContrastivePair]) -> Iterator[ContrastivePair]:
        """The pairs that go on, of the same pairs in the same order."""
        for pair, decision in zip(pairs, self.decisions, strict=True):
            if pair.pair_id != decision.pair_id:
                raise ValueError(f"pair {pair.pair_id!r} stands where {decision.pair_id!r} was verified")
            if decision.kept:
                yield pair


def verify(
    pairs: Iterable[ContrastivePair],
    judge: Judge | None = None,
    *,
    rules: RuleSettings | None = None,
    review: Path | None = None,
    funnel: Funnel | None = None,
    progress: Callable[[int], None] | None = None,
) -> Verification:
    """Verify pairs.

    Args:
        pairs: gone through several times, one pair at a time: a list or a :class:`PairFile`, not a generator.
        judge: None for rules alone.
        review: file for what the judge is uncertain about; decisions in it are applied.
        funnel: gets the stages ``rules`` and, with a judge, ``judge``.
        progress: called with 1 for every pair judged.

    Raises:
        ConfigError: the endpoint cannot be used; what was answered is in its cache.
        ReviewError: a line of the review file is wrong.
        PairFormatError: two pairs have one id.
    """
    settings = rules or RuleSettings()
    facts = [facts_of(pair, settings) for pair in pairs]
    twice = [pair_id for pair_id, count in Counter(fact.pair_id for fact in facts).items() if count > 1]
    if twice:
        raise PairFormatError(f"field 'pair_id' has value {twice[0]!r} twice. Fix: give every pair its own id.")
    dropped = _by_rules(facts, settings)
    funnel = funnel if funnel is not None else Funnel()
    stage = funnel.stage("rules", "pairs")
    for fact in facts:
        _count(stage, dropped.get(fact.pair_id))
        if fact.pair_id not in dropped:
            stage.keep()
    result = Verification([])
    verdicts: dict[str, Decision] = {}
    if judge is not None or review is not None:
        # A mistake in the review file shows before anything is paid for.
        decided = apply_review(review, {pair.pair_id: content_of(pair) for pair in pairs}) if review else {}
        judgements: dict[str, Judgement] = {}
        if judge is not None:
            wanted = (pair for pair in pairs if pair.pair_id not in dropped and pair.pair_id not in decided)
            for pair, judgement in answers(judge, wanted, judge.judge):
                judgements[pair.pair_id] = judgement
                if progress:
                    progress(1)
            result.usage = judge.summary()
        verdicts, result.unjudged = _verdicts(judgements, decided)
        if settings.both_directions:
            _by_couple(verdicts, {fact.pair_id: fact.couple for fact in facts if fact.pair_id not in dropped})
        stage = funnel.stage("judge", "pairs")
        for fact in facts:
            if fact.pair_id in dropped:
                continue
            decision = verdicts.get(fact.pair_id)
            if decision is None or decision.kept:
                stage.keep()
            else:
                _count(stage, decision)
        if review:
            open_ones = {pair_id for pair_id, found in judgements.items() if found.label == "UNCERTAIN"}
            asked = ((pair, judgements[pair.pair_id].reason) for pair in pairs if pair.pair_id in open_ones)
            result.waiting = write_review(review, asked)
    for fact in facts:
        decision = dropped.get(fact.pair_id) or verdicts.get(fact.pair_id) or Decision(fact.pair_id, True, "rules")
        result.decisions.append(decision)
    return result


def _count(stage: Any, decision: Decision | None) -> None:
    if decision is not None:
        stage.drop(decision.reason, {"pair_id": decision.pair_id, "by": decision.by, "detail": decision.detail})


def _by_rules(facts: list[Facts], settings: RuleSettings) -> dict[str, Decision]:
    reasons = rules_over_all(facts, settings)
    # A pair's own fault is the better explanation than what follows from it for the couple.
    for fact in facts:
        if fact.reason is not None:
            reasons[fact.pair_id] = fact.reason
    duplicates = {pair_id for pair_id, reason in reasons.items() if reason == "duplicate"}
    broken = {fact.couple for fact in facts if fact.pair_id in reasons and fact.pair_id not in duplicates}
    dropped = {pair_id: Decision(pair_id, False, "rules", reason) for pair_id, reason in reasons.items()}
    if settings.both_directions:
        for fact in facts:
            if fact.couple in broken and fact.pair_id not in dropped:
                dropped[fact.pair_id] = Decision(fact.pair_id, False, "couple", "another direction is dropped")
    return dropped


def _verdicts(judgements: dict[str, Judgement], decided: dict[str, str]) -> tuple[dict[str, Decision], dict[str, int]]:
    verdicts: dict[str, Decision] = {}
    unjudged: dict[str, int] = defaultdict(int)
    for pair_id, label in decided.items():
        kept = label == "VALID"
        verdicts[pair_id] = Decision(pair_id, kept, "person", "" if kept else "INVALID (person)", label=label)
    for pair_id, judgement in judgements.items():
        kept = judgement.label == "VALID"
        if judgement.label is None:
            reason = f"not judged: {judgement.how}"
            unjudged[judgement.how] += 1
        elif judgement.how == "malformed":
            reason = "UNCERTAIN: malformed answers"
        else:
            reason = "" if kept else judgement.label
        verdicts[pair_id] = Decision(pair_id, kept, "judge", reason, judgement.reason, judgement.label)
    return verdicts, dict(unjudged)


def _by_couple(verdicts: dict[str, Decision], couples: dict[str, str]) -> None:
    broken = {couples[pair_id] for pair_id, found in verdicts.items() if not found.kept and pair_id in couples}
    for pair_id, couple in couples.items():
        decision = verdicts.get(pair_id) or Decision(pair_id, True, "rules")
        if decision.kept and couple in broken:
            verdicts[pair_id] = replace(decision, kept=False, by="couple", reason="another direction is dropped")


def incomplete(verification: Verification) -> UnjudgedError | None:
    """The paragraph for a set of which a part was not judged, or None if all of it was."""
    if not verification.unjudged:
        return None
    fixes = {
        "spending cap": "raise the cap (max_cost of the judge)",
        "failed": "see that the endpoint is up",
        "refused": "see what the endpoint says about those pairs, e.g. that they are too long for the model",
    }
    counts = ", ".join(f"{count} for '{how}'" for how, count in sorted(verification.unjudged.items()))
    first = next(found for found in verification.decisions if found.reason.startswith("not judged: "))
    fix = "; ".join(fixes[how] for how in sorted(verification.unjudged) if how in fixes)
    return UnjudgedError(
        f"The judge did not judge {sum(verification.unjudged.values())} pairs: {counts} (the first is "
        f"{first.pair_id!r}: {first.detail}). Answers that came are kept in the cache. "
        f"Fix: {fix} and run the command again, or leave those pairs out with --allow-unjudged."
    )


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
        ConfigError: the endpoint cannot be used.
        PipelineError: no pair is left.
    """
    file = PairFile(candidates)
    with tqdm(total=len(file), desc="Judging", unit="pair", disable=not judging.progress or not judging.judge) as bar:
        found = verify(file, judging.judge, rules=rules, review=judging.review, funnel=funnel, progress=bar.update)
    problem = incomplete(found)
    if problem is not None and not judging.allow_unjudged:
        raise problem
    funnel.check()
    if not any(decision.kept for decision in found.decisions):
        raise PipelineError(nothing_left(funnel))
    return Concluded(write_pairs(with_bytes(found.kept(file)), out), found, _dropped(file, found))


def estimate(file: PairFile, judge: OpenAIJudge | None, rules: RuleSettings, review: Path | None) -> Iterator[str]:
    """Sentences for a dry run: how many pairs pass the rules, then calls, tokens and cost of the judge.

    Pairs that a person decided in ``review`` are not asked.
    """
    passed = verify(file, None, rules=rules)
    yield f"{sum(decision.kept for decision in passed.decisions)} of {len(file)} pairs pass the rules"
    if judge is not None:
        decided = {entry.pair_id for entry in read_review(review) if entry.decision} if review else set()
        yield judge.sentence(pair for pair in passed.kept(file) if pair.pair_id not in decided)


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
