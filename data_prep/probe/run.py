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
from data_prep.audit.features import FeatureGroup
from data_prep.audit.links import Grouping
from data_prep.audit.models import Layout
from data_prep.audit.table import BASELINES, baseline_scores, features_of, read_table, shared_words
from data_prep.common.funnel import Funnel
from data_prep.common.splits import draw
from data_prep.probe.questions import Answer, Question, Questions
from data_prep.probe.statistics import numbers, share, terciles

# Of every context: characters, words shared with the supporting one, whether it is text.
_OF_CONTEXTS = FeatureGroup(
    "facts",
    "",
    columns=lambda view: [[len(c.text), shared_words(view.contexts[0], c), c.kind != "images"] for c in view.contexts],
)


@dataclass
class Probe:
    """What came out.

    Attributes:
        questions: :func:`table_of` those that were answered.
        overall: their :func:`data_prep.probe.statistics.numbers`.
        groups: the same by group: ``by`` (split, domain, contexts, length or similarity), ``name``, and the numbers.
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
    backend: Any,
    questions: Questions,
    *,
    limit: int = 0,
    skip_long: bool = False,
) -> Probe:
    """Ask every pair in every order.

    Args:
        backend: a model with its ``name``, ``window`` (tokens of a question at most; None if unknown),
            ``length(question)`` in tokens or None, and ``answers(questions)``: (question, answer), in any order.
        limit: at most so many pairs, couples whole, drawn by the seed; 0 for all.
        skip_long: leave out pairs that are longer than the model's window, instead of stopping.

    Raises:
        ConfigError: questions are too long, none was answered, or the template or an image cannot be used.
    """
    funnel, found = Funnel(), []
    facts = facts_of(_bar(pairs, len(pairs), "reading pairs", "pair"), questions.seed)
    if limit and limit < len(facts):
        facts = _drawn(facts, limit, questions.seed, funnel)
    facts = _fitting(pairs, facts, backend, questions, funnel, skip_long)
    stage = funnel.stage("answers", "questions")
    asked = (question for row in facts.index for question in questions.of(pairs[row], row))
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

    Columns: ``pair_id, domain, split, options``; numbers of its ``couple`` and ``component``; ``length`` of its
    contexts' text in characters; ``similarity``, shared words over all words of the supporting context and the
    confounder most like it; and the credit of each of :data:`BASELINES`. The last five are missing for images.
    """
    rows, _, frequencies = read_table(pairs, [_OF_CONTEXTS], seed=seed, most=np.inf, evidence=True)
    layout, grouping = Layout([len(row.link.names) for row in rows]), Grouping([row.link for row in rows])
    columns = features_of(rows, 0, wide=False).columns.astype(float)
    columns[layout.supports, 1] = -1  # like itself
    columns[columns[:, 2] == 0, 1] = np.nan
    credits = {name: layout.credit(scores) for name, scores in baseline_scores(rows, frequencies).items()}
    names = [(row.pair_id, row.domain, row.split) for row in rows]
    facts = pd.DataFrame(names, columns=["pair_id", "domain", "split"]).assign(
        options=layout.sizes,
        length=np.add.reduceat(columns[:, 0], layout.start).astype(int),
        similarity=np.maximum.reduceat(columns[:, 1], layout.start),
        **credits,
        couple=grouping.couple,
        component=grouping.component,
    )
    facts.loc[facts["similarity"].isna(), list(credits)] = np.nan
    return facts


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
        context = question.order[chosen] if chosen >= 0 else -1
        rows.append(
            dict(
                row=question.row, rotation=question.rotation, order=list(question.order), right=right, chosen=chosen,
                chosen_context=context, credit=credit, first=first, no_choice=unread,
                scores=scores and list(scores), votes=votes and list(votes), margin=margin, option_mass=answer.mass,
            )
        )  # fmt: skip
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
    for by in named:
        # Names of thirds begin with the third; other names are in order of the alphabet.
        rank = (lambda name: thirds.index(name.partition(":")[0])) if by in ("length", "similarity") else str
        for name in sorted(named[by].unique(), key=rank):
            yield {"by": by, "name": name, **numbers(table[table["row"].map(named[by]) == name])}


def _baselines(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Chance, and overlap of words on the same pairs (those with text)."""
    asked = table.drop_duplicates("row")
    with_text = asked.dropna(subset=list(BASELINES))
    chance = float((1 / asked["options"]).mean())
    found = {"chance": (len(asked), chance, chance, chance)}
    found |= {name: (len(with_text), *share(with_text, name)) for name in BASELINES if len(with_text)}
    for name, (pairs, accuracy, low, high) in found.items():
        yield {"name": name, "pairs": pairs, "accuracy": accuracy, "low": low, "high": high}


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
    pairs: Any, facts: pd.DataFrame, backend: Any, questions: Questions, funnel: Funnel, skip_long: bool
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
    stage, reason = funnel.stage("length", "pairs"), f"longer than the model's {backend.window} tokens"
    stage.keep(len(facts) - len(long))
    for row, length in long.items():
        stage.drop(reason, {"pair_id": facts.at[row, "pair_id"], "tokens": int(length)})
    return facts.assign(length=tokens.fillna(facts["length"]).astype(int)).drop(long.index)
