"""A probe: every pair in every order, what the model chose, and the numbers that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from contextrl_verl.pairs import ContrastivePair
from data_prep.common.funnel import Funnel
from data_prep.common.seeded import draw
from data_prep.probe.facts import BASELINES, PairFacts, facts_of
from data_prep.probe.questions import Answer, Backend, ProbeError, Question, Questions
from data_prep.probe.statistics import interval, numbers, terciles

# (iterable, its length, what is counted, unit) -> the same iterable with a progress bar.
Progress = Callable[[Iterable[Any], int, str, str], Iterable[Any]]
GROUPS = ("split", "domain", "contexts", "length", "similarity")


@dataclass
class Probe:
    """What came out.

    Attributes:
        questions: one row each that was answered; see :func:`table_of`.
        overall: numbers of all questions, as :func:`data_prep.probe.statistics.numbers`.
        groups: the same by group: ``by`` (one of :data:`GROUPS`), ``name``, and the numbers.
        baselines: ``name, accuracy, low, high, pairs`` of chance and of overlap of words.
        funnel: pairs and questions left out, by reason.
    """

    questions: pd.DataFrame
    overall: dict[str, Any]
    groups: list[dict[str, Any]]
    baselines: list[dict[str, Any]]
    funnel: Funnel


def probe(
    pairs: Any,
    backend: Backend,
    questions: Questions,
    *,
    limit: int = 0,
    skip_long: bool = False,
    progress: Progress = lambda items, total, what, unit: items,
) -> Probe:
    """Ask ``backend`` every pair in every order.

    Args:
        pairs: a sequence of pairs that can be read again, such as a PairFile.
        limit: at most so many pairs, couples whole, drawn by the seed; 0 for all.
        skip_long: leave out pairs that are longer than the model's window, instead of stopping.

    Raises:
        ProbeError: questions are too long, or none was answered.
        ConfigError: the template or an image cannot be used.
    """
    funnel = Funnel()
    facts = facts_of(progress(pairs, len(pairs), "reading pairs", "pair"), questions.seed)
    rows = _drawn(facts, limit, questions.seed, funnel)
    lengths = _lengths(pairs, rows, backend, questions, funnel, skip_long, progress)
    backend.load()
    stage = funnel.stage("answers", "questions")
    total = sum(facts[row].options for row in lengths)
    asked = (question for row in lengths for question in questions.of(pairs[row], row))
    found: list[tuple[Question, Answer]] = []
    for question, answer in progress(backend.answers(asked), total, "asking", "question"):
        if answer.failure:
            stage.drop(answer.failure, {"pair_id": question.pair_id, "order": question.rotation, "why": answer.detail})
        else:
            stage.keep()
            # Without the messages, whose images would all stay in memory.
            found.append((replace(question, messages=[]), answer))
    funnel.check()
    if not found:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(stage.dropped.items()))
        raise ProbeError(f"no question was answered: {reasons}. Fix: see the first reason.")
    table = table_of(found, facts, lengths)
    return Probe(
        questions=table,
        overall=numbers(table),
        groups=list(groups_of(table)),
        baselines=baselines_of(table, facts),
        funnel=funnel,
    )


def table_of(
    found: Iterable[tuple[Question, Answer]], facts: list[PairFacts], lengths: dict[int, int | None]
) -> pd.DataFrame:
    """One row for each question, by pair and rotation.

    Columns: ``pair_id, rotation, order, right, chosen`` (position, -1 for none), ``chosen_context`` (index in the pair,
    0 supports), ``credit`` and ``first`` (share of replies that are right, that choose the first option),
    ``no_choice`` (share that names none), ``scores, votes, margin, option_mass``, and of the pair ``row, options,
    domain, split, couple, component, length, similarity``.
    """
    rows = []
    for question, answer in found:
        fact, length = facts[question.row], lengths[question.row]
        rows.append(
            {
                "row": question.row,
                "pair_id": question.pair_id,
                "rotation": question.rotation,
                "order": list(question.order),
                "right": question.right,
                **_reading(question, answer),
                "options": fact.options,
                "domain": fact.domain,
                "split": fact.split,
                "couple": fact.couple,
                "component": fact.component,
                "length": fact.characters if length is None else length,
                "similarity": fact.similarity,
            }
        )
    table = pd.DataFrame(rows).sort_values(["row", "rotation"], ignore_index=True)
    for name in ("margin", "option_mass", "similarity"):
        table[name] = table[name].astype(float)
    return table


def _reading(question: Question, answer: Answer) -> dict[str, Any]:
    """What an answer says, by the definitions of training: a tie is not right, and goes to the first of the best."""
    margin = None
    if answer.scores is not None:
        scores = answer.scores
        margin = scores[question.right] - max(s for at, s in enumerate(scores) if at != question.right)
        chosen = int(np.argmax(scores))
        credit, first, unread = float(margin > 0), float(chosen == 0), 0.0
    else:
        votes = answer.votes
        total = sum(votes) + answer.unread
        best = [at for at, count in enumerate(votes) if count == max(votes) > 0]
        chosen = best[0] if len(best) == 1 else -1
        credit, first, unread = votes[question.right] / total, votes[0] / total, answer.unread / total
    return {
        "chosen": chosen,
        "chosen_context": question.order[chosen] if chosen >= 0 else -1,
        "credit": credit,
        "first": first,
        "no_choice": unread,
        "scores": list(answer.scores) if answer.scores is not None else None,
        "votes": list(answer.votes) if answer.votes is not None else None,
        "margin": margin,
        "option_mass": answer.mass,
    }


def groups_of(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Numbers by split, domain, number of contexts, and thirds of length and similarity (bounds taken over pairs)."""
    pairs = table.drop_duplicates("pair_id").set_index("pair_id")
    named = pairs[["split", "domain"]].assign(
        contexts=pairs["options"].astype(str),
        length=terciles(pairs["length"].tolist()),
        similarity=terciles(pairs["similarity"].round(3).tolist()),
    )
    thirds = ("low", "middle", "high", "unknown")
    for by in GROUPS:
        # Names of thirds begin with the third; other names are in order of the alphabet.
        rank = [thirds.index(name.partition(":")[0]) if by in ("length", "similarity") else 0 for name in named[by]]
        for _, name in sorted(set(zip(rank, named[by], strict=True))):
            yield {"by": by, "name": name, **numbers(table[table["pair_id"].map(named[by]) == name])}


def baselines_of(table: pd.DataFrame, facts: list[PairFacts]) -> list[dict[str, Any]]:
    """Chance, and overlap of words on the same pairs (those with text)."""
    asked = [facts[row] for row in sorted(table["row"].unique())]
    chance = float(np.mean([1 / fact.options for fact in asked]))
    found = [{"name": "chance", "accuracy": chance, "low": chance, "high": chance, "pairs": len(asked)}]
    with_text = [fact for fact in asked if fact.baselines is not None]
    if with_text:
        clusterings = [np.asarray([getattr(fact, name) for fact in with_text]) for name in ("couple", "component")]
        for place, name in enumerate(BASELINES):
            credit = np.asarray([fact.baselines[place] for fact in with_text])
            low, high = interval(credit, clusterings, len(with_text))
            accuracy = float(credit.mean())
            found.append({"name": name, "accuracy": accuracy, "low": low, "high": high, "pairs": len(with_text)})
    return found


def _drawn(facts: list[PairFacts], limit: int, seed: int, funnel: Funnel) -> list[int]:
    """Rows of the pairs to ask."""
    if not limit or limit >= len(facts):
        return list(range(len(facts)))
    couples: dict[int, list[int]] = {}
    for row, fact in enumerate(facts):
        couples.setdefault(fact.couple, []).append(row)
    chosen: list[int] = []
    for rows in sorted(couples.values(), key=lambda rows: draw(seed, "probe", min(facts[r].pair_id for r in rows))):
        if len(chosen) + len(rows) <= limit:
            chosen += rows
    if not chosen:
        raise ProbeError(f"--limit is {limit}, and every couple has more pairs. Fix: raise it.")
    stage = funnel.stage("limit", "pairs")
    stage.keep(len(chosen))
    stage.drop("over --limit", count=len(facts) - len(chosen))
    return sorted(chosen)


def _lengths(
    pairs: Any,
    rows: list[int],
    backend: Backend,
    questions: Questions,
    funnel: Funnel,
    skip_long: bool,
    progress: Progress,
) -> dict[int, int | None]:
    """Tokens of each pair's longest question, by row; None where the backend cannot count. Long pairs are left out."""
    stage = funnel.stage("length", "pairs")
    lengths: dict[int, int | None] = {}
    long: list[tuple[int, str]] = []
    for row in progress(rows, len(rows), "counting tokens", "pair"):
        pair: ContrastivePair = pairs[row]
        counted = [backend.length(question) for question in questions.of(pair, row)]
        length = None if None in counted else max(counted)
        if length is not None and backend.window is not None and length > backend.window:
            long.append((length, pair.pair_id))
            stage.drop(f"longer than the model's {backend.window} tokens", {"pair_id": pair.pair_id, "tokens": length})
        else:
            lengths[row] = length
            stage.keep()
    if long and (not skip_long or not lengths):
        longest, pair_id = max(long)
        fix = "shorter contexts, or a model with a longer window" if not lengths else "--skip-long leaves them out"
        raise ProbeError(
            f"{len(long)} of {len(rows)} pairs are longer than the {backend.window} tokens that {backend.name} can "
            f"read; the longest, {pair_id!r}, has {longest}. Fix: {fix}."
        )
    return lengths
