"""Verification of a whole set: rules, then a judge if there is one, then what a person decided.

A couple stands or falls as a whole: if one of its directions is dropped, the others would tell the label.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contextrl_verl.pairs import ContrastivePair, PairFormatError
from data_prep.common.funnel import Funnel
from data_prep.models.errors import RemoteError
from data_prep.models.in_order import in_order
from data_prep.verify.review import apply_review, write_review
from data_prep.verify.rules import Facts, RuleSettings, content_of, facts_of, rules_over_all
from data_prep.verify.verdict import Judge, Judgement


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
        RemoteError: the endpoint cannot be used; what was answered is in its cache.
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
            judgements, result.usage = asyncio.run(_all(pairs, {*dropped, *decided}, judge, progress))
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


async def _all(
    pairs: Iterable[ContrastivePair], skip: set[str], judge: Judge, progress: Callable[[int], None] | None
) -> tuple[dict[str, Judgement], dict[str, Any]]:
    async with judge:
        judgements = {}
        wanted = (pair for pair in pairs if pair.pair_id not in skip)
        async for pair, judgement in in_order(wanted, judge.judge):
            judgements[pair.pair_id] = judgement
            if progress:
                progress(1)
        return judgements, judge.summary()


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


def incomplete(verification: Verification, endpoint: str = "The judge") -> RemoteError | None:
    """The paragraph for a set of which a part was not judged, or None if all of it was."""
    if not verification.unjudged:
        return None
    fixes = {
        "spending cap": "raise the cap (--max-cost; max_cost of a role)",
        "failed": "see that the endpoint is up",
        "refused": "see what the endpoint says about those pairs, e.g. that they are too long for the model",
    }
    counts = ", ".join(f"{count} for '{how}'" for how, count in sorted(verification.unjudged.items()))
    details = [d for d in verification.decisions if d.reason.startswith("not judged: ")]
    fix = "; ".join(fixes[how] for how in sorted(verification.unjudged) if how in fixes)
    return RemoteError(
        f"{endpoint} did not judge {sum(verification.unjudged.values())} pairs: {counts} (the first is "
        f"{details[0].pair_id!r}: {details[0].detail}). Answers that came are kept in the cache. "
        f"Fix: {fix} and run the command again, or leave those pairs out with --allow-unjudged."
    )
