"""A probe: every pair in every order, what the model chose, and the numbers that follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.files import PairFile
from data_prep.audit.baselines import Frequencies, overlap_scores, terms_of
from data_prep.audit.links import Grouping, link
from data_prep.audit.view import ContextView, Views
from data_prep.common.funnel import Funnel
from data_prep.common.seeded import draw
from data_prep.probe.questions import Answer, Backend, Question, Questions
from data_prep.probe.statistics import choice_credit, numbers, share, terciles

BASELINES = ("overlap: jaccard", "overlap: tf-idf", "overlap: lines", "overlap: fuzzy")
_COLUMNS = ["pair_id", "domain", "split", "options", "length", "similarity", *BASELINES]
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
    pairs: Sequence[ContrastivePair] | PairFile,
    backend: Backend,
    questions: Questions,
    *,
    limit: int = 0,
    skip_long: bool = False,
) -> Probe:
    """Ask ``backend`` every pair in every order.

    Args:
        limit: at most so many pairs, couples whole, drawn by the seed; 0 for all.
        skip_long: leave out pairs that are longer than the model's window, instead of stopping.

    Raises:
        ConfigError: questions are too long, none was answered, or the template or an image cannot be used.
    """
    funnel = Funnel()
    facts = facts_of(_bar(pairs, len(pairs), "reading pairs", "pair"), questions.seed)
    if limit and limit < len(facts):
        facts = _drawn(facts, limit, questions.seed, funnel)
    facts = _fitting(pairs, facts, backend, questions, funnel, skip_long)
    stage = funnel.stage("answers", "questions")
    asked = (question for row in facts.index for question in questions.of(pairs[row], row))
    found: list[tuple[Question, Answer]] = []
    for question, answer in _bar(backend.answers(asked), facts["options"].sum(), "asking", "question"):
        if answer.failure:
            stage.drop(answer.failure, {"pair_id": question.pair_id, "order": question.rotation, "why": answer.detail})
        else:
            stage.keep()
            # Without the messages, whose images would all stay in memory.
            found.append((replace(question, messages=[]), answer))
    funnel.check()
    if not found:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(stage.dropped.items()))
        raise ConfigError(f"no question was answered: {reasons}. Fix: see the first reason.")
    table = table_of(found, facts)
    return Probe(table, numbers(table), list(_groups(table)), list(_baselines(table)), funnel)


def _bar(items: Iterable[Any], total: int, what: str, unit: str) -> Iterable[Any]:
    return tqdm(items, total=total, desc=what, unit=unit, delay=1)


def facts_of(pairs: Iterable[ContrastivePair], seed: int = 1) -> pd.DataFrame:
    """Facts of every pair, by row; takes one pair at a time.

    Columns: ``pair_id, domain, split, options``; number of its ``couple``, and ``component`` of the pairs that share
    runs, images or contexts with it; ``length`` of its contexts' text in characters; ``similarity``, shared words over
    all words (Jaccard) of the supporting context and the confounder most like it; and the credit of each of
    :data:`BASELINES`. The last five are missing for images.
    """
    views, frequencies = Views(seed), Frequencies()
    links, rows, terms = [], [], {}
    for number, pair in enumerate(pairs):
        view = views.of(pair, number)
        links.append(link(view))
        row = {
            "pair_id": pair.pair_id,
            "domain": pair.domain,
            "split": pair.split,
            "options": len(view.contexts),
            "length": sum(len(context.text) for context in view.contexts),
        }
        rows.append(row)
        if view.contexts[0].kind != "images":
            row["similarity"] = max(_jaccard(view.contexts[0], other) for other in view.contexts[1:])
            jaccard, lines, fuzzy = (choice_credit(column) for column in overlap_scores(view).T)
            row |= dict(zip(BASELINES, (jaccard, np.nan, lines, fuzzy), strict=True))
            terms[number] = terms_of(view)
            for context in view.contexts:
                frequencies.add(context)
    # How rare a word is shows only once all pairs are read.
    for number, found in terms.items():
        rows[number]["overlap: tf-idf"] = choice_credit(frequencies.score(found))
    facts, grouping = pd.DataFrame(rows, columns=_COLUMNS), Grouping(links)
    return facts.assign(couple=grouping.couple, component=grouping.component)


def _jaccard(one: ContextView, other: ContextView) -> float:
    shared = len(np.intersect1d(one.words.indices, other.words.indices, assume_unique=True))
    union = one.words.nnz + other.words.nnz - shared
    return shared / union if union else 1.0


def table_of(found: Iterable[tuple[Question, Answer]], facts: pd.DataFrame) -> pd.DataFrame:
    """One row for each question, by pair and rotation, by the definitions of training: a tie is not right.

    Columns: ``row, rotation, order, right, chosen`` (position, -1 for none), ``chosen_context`` (index in the pair, 0
    supports), ``credit`` and ``first`` (share of replies that are right, that choose the first option), ``no_choice``
    (share that names none), ``scores, votes, margin, option_mass``, and those of :func:`facts_of`, with ``length`` in
    tokens where the backend counts them.
    """
    rows = []
    for question, answer in found:
        right, margin, scores, votes = question.right, None, answer.scores, answer.votes
        if scores is not None:
            margin = scores[right] - max(scores[:right] + scores[right + 1 :])
            # A tie goes to the first of the best.
            chosen = scores.index(max(scores))
            credit, first, unread = float(margin > 0), float(chosen == 0), 0.0
        else:
            total = sum(votes) + answer.unread
            chosen = votes.index(max(votes)) if votes.count(max(votes)) == 1 else -1
            credit, first, unread = votes[right] / total, votes[0] / total, answer.unread / total
        rows.append(
            {
                "row": question.row,
                "rotation": question.rotation,
                "order": list(question.order),
                "right": right,
                "chosen": chosen,
                "chosen_context": question.order[chosen] if chosen >= 0 else -1,
                "credit": credit,
                "first": first,
                "no_choice": unread,
                "scores": scores and list(scores),
                "votes": votes and list(votes),
                "margin": margin,
                "option_mass": answer.mass,
            }
        )
    table = pd.DataFrame(rows).sort_values(["row", "rotation"], ignore_index=True).join(facts, on="row")
    return table.astype({"margin": float, "option_mass": float})


def _groups(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Numbers by split, domain, number of contexts, and thirds of length and similarity (bounds taken over pairs)."""
    pairs = table.drop_duplicates("row").set_index("row")
    named = pairs[["split", "domain"]].assign(
        contexts=pairs["options"].astype(str),
        length=terciles(pairs["length"]),
        similarity=terciles(pairs["similarity"].round(3)),
    )
    thirds = ("low", "middle", "high", "unknown")
    for by in GROUPS:
        # Names of thirds begin with the third; other names are in order of the alphabet.
        rank = (lambda name: thirds.index(name.partition(":")[0])) if by in ("length", "similarity") else str
        for name in sorted(named[by].unique(), key=rank):
            yield {"by": by, "name": name, **numbers(table[table["row"].map(named[by]) == name])}


def _baselines(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Chance, and overlap of words on the same pairs (those with text)."""
    asked = table.drop_duplicates("row")
    chance = float((1 / asked["options"]).mean())
    yield {"name": "chance", "accuracy": chance, "low": chance, "high": chance, "pairs": len(asked)}
    with_text = asked.dropna(subset=list(BASELINES))
    for name in BASELINES if len(with_text) else ():
        accuracy, low, high = share(with_text, name)
        yield {"name": name, "accuracy": accuracy, "low": low, "high": high, "pairs": len(with_text)}


def _drawn(facts: pd.DataFrame, limit: int, seed: int, funnel: Funnel) -> pd.DataFrame:
    """The pairs to ask: whole couples in an order drawn from the seed, as long as they fit."""
    couples = facts.groupby("couple")["pair_id"].agg(["min", "size"])
    couples = couples.iloc[np.argsort([draw(seed, "probe", first) for first in couples["min"]])]
    chosen = facts[facts["couple"].isin(couples.index[couples["size"].cumsum() <= limit])]
    if chosen.empty:
        raise ConfigError(f"--limit is {limit}, and the first couple has more pairs. Fix: raise it.")
    stage = funnel.stage("limit", "pairs")
    stage.keep(len(chosen))
    stage.drop("over --limit", count=len(facts) - len(chosen))
    return chosen


def _fitting(
    pairs: Any, facts: pd.DataFrame, backend: Backend, questions: Questions, funnel: Funnel, skip_long: bool
) -> pd.DataFrame:
    """Facts of the pairs that fit into the model's window, with the tokens of the longest question where known."""
    rows = _bar(facts.index, len(facts), "counting tokens", "pair")
    counted = {row: [backend.length(question) for question in questions.of(pairs[row], row)] for row in rows}
    tokens = pd.Series({row: None if None in found else max(found) for row, found in counted.items()}, dtype="Int64")
    long = tokens[(tokens > (backend.window or np.inf)).fillna(False)]
    if len(long) and (not skip_long or len(long) == len(facts)):
        fix = "--skip-long leaves them out" if len(long) < len(facts) else "a model with a longer window"
        raise ConfigError(
            f"{len(long)} of {len(facts)} pairs are longer than the {backend.window} tokens that {backend.name} can "
            f"read; the longest, {facts.at[long.idxmax(), 'pair_id']!r}, has {long.max()}. Fix: {fix}."
        )
    stage = funnel.stage("length", "pairs")
    stage.keep(len(facts) - len(long))
    for row, length in long.items():
        sample = {"pair_id": facts.at[row, "pair_id"], "tokens": int(length)}
        stage.drop(f"longer than the model's {backend.window} tokens", sample)
    return facts.assign(length=tokens.fillna(facts["length"]).astype(int)).drop(long.index)
