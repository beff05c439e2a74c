"""Verifies a whole set (rules, then a judge if there is one, then what a person decided), and writes what passes.

A couple stands or falls as a whole: if one of its directions is dropped, the others would tell the label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair, PairFormatError
from contextrl_verl.pairs.files import PairFile, write_pairs
from data_prep.common.funnel import Funnel, Stage
from data_prep.common.image_bytes import with_bytes
from data_prep.common.pipeline import PipelineError
from data_prep.models.endpoint import answers
from data_prep.report.page import Example, write_report
from data_prep.verify.judge import Judgement, OpenAIJudge
from data_prep.verify.review import apply_review, read_review, write_review
from data_prep.verify.rules import DUPLICATE, RuleSettings, content_of, dropped_by_rules, facts_of

# Exit status 1 is a mistake to mend; this one: not all pairs were judged.
UNJUDGED = 3
_NOT_JUDGED = {
    "spending cap": "raise the cap (max_cost of the judge)",
    "failed": "see that the endpoint is up",
    "refused": "see what the endpoint says about those pairs, e.g. that they are too long for the model",
}
# Of pairs, which to leave out by id, and why.
TooEasy = Callable[[Iterable[ContrastivePair]], dict[str, str]]


class UnjudgedError(ConfigError):
    """A part of the pairs was not judged; nothing was written."""

    status = UNJUDGED


@dataclass(frozen=True)
class Decision:
    """What becomes of a pair.

    Attributes:
        by: ``rules``, ``overlap``, ``judge``, ``person`` or ``couple`` (another direction was dropped).
        reason: of a pair that is dropped, short, for counting; empty if it goes on. ``detail`` in the judge's words.
    """

    pair_id: str
    by: str = "rules"
    reason: str = ""
    detail: str = ""

    @property
    def kept(self) -> bool:
        return not self.reason


@dataclass
class Verification:
    """Decisions in the order of the pairs.

    Attributes:
        unjudged: how many pairs a judge was to see and did not, by cause.
        waiting: lines of the review file without a decision. ``usage``: the judge's counts.
        pairs: how many were written by :func:`conclude`; ``dropped``: a dropped one of each reason, to be looked at.
    """

    decisions: list[Decision] = field(default_factory=list)
    unjudged: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    pairs: int = 0
    dropped: list[Example] = field(default_factory=list)

    def kept(self, pairs: Iterable[ContrastivePair]) -> Iterator[ContrastivePair]:
        """The pairs that go on, of the same pairs in the same order."""
        return (pair for pair, decision in zip(pairs, self.decisions, strict=True) if decision.kept)

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says of the judge; empty without one."""
        if not self.usage and not self.waiting:
            return {}
        return {"judge": self.usage, "waiting_for_review": self.waiting, "unjudged": self.unjudged}


def verify(
    pairs: Sequence[ContrastivePair] | PairFile,
    judge: OpenAIJudge | None = None,
    *,
    rules: RuleSettings | None = None,
    review: Path | None = None,
    funnel: Funnel | None = None,
    too_easy: TooEasy | None = None,
) -> Verification:
    """Verify pairs, which are gone through several times, one at a time.

    Args:
        judge: or anything with its ``judge`` and ``summary``, used in ``async with``; None for rules alone.
        review: file for what the judge is uncertain about; decisions in it are applied.
        funnel: gets the stages ``rules``, with ``too_easy`` ``overlap`` and, with a judge, ``judge``.
        too_easy: asked about the pairs that pass the rules.

    Raises:
        ConfigError: a line of the review file is wrong; the endpoint cannot be used, and its answers are in its cache.
        PairFormatError: two pairs have one id.
    """
    facts = [facts_of(pair, rules or RuleSettings()) for pair in pairs]
    couples = {fact.pair_id: fact.couple for fact in facts}
    if len(couples) < len(facts):
        ((twice, _),) = Counter(fact.pair_id for fact in facts).most_common(1)
        raise PairFormatError(f"field 'pair_id' has value {twice!r} twice. Fix: give every pair its own id.")
    funnel = funnel if funnel is not None else Funnel()
    dropped = {pair_id: Decision(pair_id, "rules", reason) for pair_id, reason in dropped_by_rules(facts).items()}
    decisions = settle(dropped, couples, funnel.stage("rules", "pairs"))
    result = Verification()
    if too_easy is not None:
        passed = {pair_id: couple for pair_id, couple in couples.items() if decisions[pair_id].kept}
        easy = too_easy(pair for pair in pairs if pair.pair_id in passed)
        found = {pair_id: Decision(pair_id, "overlap", reason) for pair_id, reason in easy.items()}
        decisions |= settle(found, passed, funnel.stage("overlap", "pairs"))
    if judge is not None or review is not None:
        passed = {pair_id: couple for pair_id, couple in couples.items() if decisions[pair_id].kept}
        # A mistake in the review file shows before anything is paid for.
        decided = apply_review(review, {pair.pair_id: content_of(pair) for pair in pairs}) if review else {}
        judgements: dict[str, Judgement] = {}
        if judge is not None:
            wanted = passed.keys() - decided.keys()
            asked = answers(judge, (pair for pair in pairs if pair.pair_id in wanted), judge.judge)
            bar = tqdm(asked, total=len(wanted), desc="Judging", unit="pair", delay=1)
            judgements = {pair.pair_id: judgement for pair, judgement in bar}
            result.usage = judge.summary()
        verdicts = {pair_id: _verdict(pair_id, judgement) for pair_id, judgement in judgements.items()}
        for pair_id, label in decided.items():
            verdicts[pair_id] = Decision(pair_id, "person", "" if label == "VALID" else "INVALID (person)")
        decisions |= settle(verdicts, passed, funnel.stage("judge", "pairs"))
        result.unjudged = dict(Counter(found.how for found in judgements.values() if found.label is None))
        if review:
            open_ones = {pair_id: found.reason for pair_id, found in judgements.items() if found.label == "UNCERTAIN"}
            uncertain = ((pair, open_ones[pair.pair_id]) for pair in pairs if pair.pair_id in open_ones)
            result.waiting = write_review(review, uncertain)
    result.decisions = list(decisions.values())
    return result


def settle(found: dict[str, Decision], couples: dict[str, str], stage: Stage) -> dict[str, Decision]:
    """Decisions on all pairs, counted: those that were found, and the fall of a couple that lost a pair.

    Args:
        couples: of all pairs that enter the stage, by pair id; one that was not ``found`` goes on if its couple does.
    """
    broken = {couples.get(pair_id) for pair_id, one in found.items() if one.reason not in ("", DUPLICATE)}
    settled = {}
    for pair_id, couple in couples.items():
        one = found.get(pair_id, Decision(pair_id))
        if one.kept and couple in broken:
            one = Decision(pair_id, "couple", "another direction is dropped", one.detail)
        if one.kept:
            stage.keep()
        else:
            stage.drop(one.reason, {"pair_id": pair_id, "by": one.by, "detail": one.detail})
        settled[pair_id] = one
    return settled


def _verdict(pair_id: str, judgement: Judgement) -> Decision:
    if judgement.label is None:
        reason = f"not judged: {judgement.how}"
    elif judgement.how == "malformed":
        reason = "UNCERTAIN: malformed answers"
    else:
        reason = "" if judgement.label == "VALID" else judgement.label
    return Decision(pair_id, "judge", reason, judgement.reason)


def incomplete(verification: Verification) -> UnjudgedError | None:
    """The paragraph for a set of which a part was not judged, or None if all of it was."""
    causes = sorted(verification.unjudged.items())
    if not causes:
        return None
    first = next(found for found in verification.decisions if found.reason.startswith("not judged: "))
    return UnjudgedError(
        f"The judge did not judge {sum(verification.unjudged.values())} pairs: "
        f"{', '.join(f'{count} for {how!r}' for how, count in causes)} (the first is {first.pair_id!r}: "
        f"{first.detail}). Answers that came are kept in the cache. "
        f"Fix: {'; '.join(_NOT_JUDGED[how] for how, _ in causes if how in _NOT_JUDGED)} and run the command again, or "
        "leave those pairs out with --allow-unjudged."
    )


@dataclass(frozen=True)
class Judging:
    """What verifies pairs besides the rules, and whether to write the rest when some pairs were not judged."""

    judge: OpenAIJudge | None = None
    review: Path | None = None
    allow_unjudged: bool = False


def conclude(
    candidates: Path,
    out: Path,
    rules: RuleSettings,
    judging: Judging,
    funnel: Funnel,
    too_easy: TooEasy | None = None,
) -> Verification:
    """Verify the pairs of ``candidates`` and write those that pass to ``out``.

    Raises:
        UnjudgedError: the judge did not see all pairs, see :class:`Judging`.
        ConfigError: the endpoint cannot be used. PipelineError: no pair is left.
    """
    file = PairFile(candidates)
    found = verify(file, judging.judge, rules=rules, review=judging.review, funnel=funnel, too_easy=too_easy)
    problem = incomplete(found)
    if problem is not None and not judging.allow_unjudged:
        raise problem
    funnel.check()
    if not any(decision.kept for decision in found.decisions):
        raise nothing_left(funnel)
    first: dict[str, int] = {}
    for row, decision in enumerate(found.decisions):
        if not decision.kept:
            first.setdefault(decision.reason, row)
    shown = ((file[row], found.decisions[row]) for row in first.values())
    found.dropped = [Example.of(pair, "dropped", one.reason, by=one.by, detail=one.detail) for pair, one in shown]
    found.pairs = write_pairs(with_bytes(found.kept(file)), out)
    return found


def estimate(
    file: PairFile,
    judge: OpenAIJudge | None,
    rules: RuleSettings,
    review: Path | None,
    too_easy: TooEasy | None = None,
) -> Iterator[str]:
    """Sentences for a dry run: how many pairs pass, then calls, tokens and cost of the judge.

    Pairs that a person decided in ``review`` are not asked.
    """
    passed = verify(file, None, rules=rules, too_easy=too_easy)
    left = sum(decision.kept for decision in passed.decisions)
    yield f"{left} of {len(file)} pairs pass the rules{' and the cap on words in common' if too_easy else ''}"
    if judge is not None:
        decided = {entry.pair_id for entry in read_review(review).values() if entry.decision} if review else set()
        yield judge.sentence(pair for pair in passed.kept(file) if pair.pair_id not in decided)


class NothingLeftError(PipelineError):
    """No pair is left; ``funnel`` holds where they went."""

    funnel: Funnel


def nothing_left(funnel: Funnel) -> NothingLeftError:
    """The error for an empty result."""
    steps = [f"{one.name}: {one.entered} in, {one.left} out{_most_dropped(one)}" for one in funnel if one.entered]
    error = NothingLeftError(
        f"no pair is left ({'; '.join(steps)}). Fix: give more alike sources (runs of several issues of one "
        "repository, questions asked of several images), or loosen the stage that drops most; --help lists them."
    )
    error.funnel = funnel
    return error


def _most_dropped(stage: Stage) -> str:
    """The most frequent reasons, e.g. ``, dropped for: empty patch 2``."""
    reasons = [f"{reason} {count:,}" for reason, count in stage.dropped.most_common(4)]
    more = ["..."] if len(stage.dropped) > 4 else []
    return f", dropped for: {', '.join(reasons + more)}" if reasons else ""


@contextmanager
def reported(folder: Path | None, title: str) -> Iterator[None]:
    """Write the report, with samples of what was dropped, also when no pair is left; the error goes on and names it."""
    try:
        yield
    except NothingLeftError as error:
        if folder is not None:
            page = write_report(folder, {"pairs": 0}, error.funnel, title=title, notices=[str(error)])
            raise PipelineError(f"{error} Samples of what was dropped are in the report, {page}.") from error
        raise


def spread(file: PairFile, count: int = 12, rows: Sequence[int] | None = None) -> Iterator[Example]:
    """``count`` kept pairs from all over a file, or from all over some of its rows."""
    rows = range(len(file)) if rows is None else rows
    return (Example.of(file[row]) for row in islice(rows, 0, None, max(1, len(rows) // count)))
