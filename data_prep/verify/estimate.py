"""What a judge would cost, before it is asked anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contextrl_verl.pairs.files import PairFile
from data_prep.verify.judge import OpenAIJudge
from data_prep.verify.review import read_review
from data_prep.verify.rules import RuleSettings
from data_prep.verify.verify import verify


def estimate(file: PairFile, judge: OpenAIJudge | None, rules: RuleSettings, review: Path | None) -> Iterator[str]:
    """Sentences for a dry run: how many pairs pass the rules, then calls, tokens and cost of the judge.

    Pairs that a person decided in ``review`` are not asked.
    """
    passed = verify(file, None, rules=rules)
    count = sum(decision.kept for decision in passed.decisions)
    yield f"{count} of {len(file)} pairs pass the rules"
    if judge is not None:
        decided = {entry.pair_id for entry in read_review(review) if entry.decision} if review else set()
        yield judge.estimate(pair for pair in passed.kept(file) if pair.pair_id not in decided).sentence()
