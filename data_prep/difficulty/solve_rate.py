"""How often each pair was solved, which stay (those solved between two bounds, couple by couple), and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.files import PairFile
from data_prep.common.funnel import Funnel
from data_prep.probe.questions import Answer, Question
from data_prep.report.page import Example, Histogram, write_report
from data_prep.verify.rules import couple_of
from data_prep.verify.write import Decision, settle


def tries_of(answers: Iterable[tuple[Question, Answer]]) -> pd.DataFrame:
    """One row for each order of a pair: how many replies were ``tried``, ``solved`` it and were ``unparsed`` (name no
    option), the ``label`` of the supporting context; ``failure`` and ``detail`` say why there are none.
    """
    rows = []
    for question, answer in answers:
        votes = answer.votes or (0,) * len(question.labels)
        row = (sum(votes) + answer.unread, votes[question.right], answer.unread, answer.failure, answer.detail)
        rows.append((question.pair_id, question.labels[question.right], *row))
    return pd.DataFrame(rows, columns=["pair_id", "label", "tried", "solved", "unparsed", "failure", "detail"])


def by_pair(tries: pd.DataFrame) -> pd.DataFrame:
    """The same for each pair: ``tried, solved`` in all its orders, ``failure, detail`` of one of them."""
    how = {"tried": "sum", "solved": "sum", "failure": "max", "detail": "max"}
    return tries.groupby("pair_id", sort=False).agg(how)


def decide(
    pairs: Iterable[ContrastivePair], found: pd.DataFrame, tries: int, bounds: tuple[int, int], funnel: Funnel
) -> dict[str, Decision]:
    """What becomes of every pair, by pair id; counts go to the stage ``difficulty``. Couples stand or fall as a whole.

    Args:
        found: of :func:`by_pair`. ``bounds``: least and most solved tries of ``tries``, both included.
    """
    low, high = bounds
    decisions: dict[str, Decision] = {}
    for one in found.itertuples():
        reason, detail = "", f"solved {one.solved} of {tries}"
        if one.failure:
            reason, detail = f"not tried: {one.failure}", one.detail
        elif one.solved < low:
            reason = f"too hard: solved fewer than {low} of {tries}"
        elif one.solved > high:
            reason = f"too easy: solved more than {high} of {tries}"
        decisions[one.Index] = Decision(one.Index, "solver", reason, detail)
    return settle(decisions, {pair.pair_id: couple_of(pair) for pair in pairs}, funnel.stage("difficulty", "pairs"))


def kept_pairs(
    pairs: Iterable[ContrastivePair], found: pd.DataFrame, decisions: dict[str, Decision], model: str
) -> Iterator[ContrastivePair]:
    """The pairs that stay, with ``provenance["difficulty"]``: model, solved and tried."""
    for pair in pairs:
        if decisions[pair.pair_id].kept:
            one = found.loc[pair.pair_id]
            note = {"model": model, "solved": int(one.solved), "of": int(one.tried)}
            yield pair.model_copy(update={"provenance": {**pair.provenance, "difficulty": note}})


def write_page(
    folder: Path, file: PairFile, tries: pd.DataFrame, decisions: dict[str, Decision], funnel: Funnel, *, model: str,
    each: int, usage: dict[str, Any],
) -> None:  # fmt: skip
    """``index.html`` and ``summary.json``: how often pairs were solved, by which label, examples of each kind; ``each``
    pair was to be tried so often.
    """
    found, labels = by_pair(tries), tries.groupby("label")[["solved", "tried"]].sum()
    accuracy = (labels["solved"] / labels["tried"]).dropna().round(4).to_dict()
    replies, unparsed = int(tries["tried"].sum()), int(tries["unparsed"].sum())
    solved, notices = Counter(found["solved"]), []
    summary = {
        "model": model,
        "pairs_in": len(file),
        "pairs": sum(one.kept for one in decisions.values()),
        "tries_of_each": each,
        "replies": replies,
        "accuracy": round(int(tries["solved"].sum()) / replies, 4) if replies else None,
        "unparsed": unparsed,
        "solved": {str(count): solved[count] for count in range(each + 1)},
        "accuracy_by_label": accuracy,
        "solver": usage,
    }
    if unparsed > 0.2 * replies:
        notices.append(
            f"{unparsed / replies:.0%} of the replies name no option, and count as not solved: they may be cut "
            "(raise max_tokens) or the model does not follow the question."
        )
    if accuracy and max(accuracy.values()) - min(accuracy.values()) > 0.2:
        notices.append(f"The model prefers a position: accuracy by label is {accuracy}.")
    reasons = pd.Series({one.pair_id: one.reason for one in decisions.values()})
    shown = set(reasons.groupby(reasons).head(3).index)
    examples = (
        Example.of(pair, "dropped" if one.reason else "kept", one.reason, solved=one.detail)
        for pair in file
        if (one := decisions[pair.pair_id]).pair_id in shown
    )
    write_report(
        folder,
        summary,
        funnel,
        examples,
        title=f"Difficulty for {model}",
        histograms=[Histogram("solved tries of a pair", found["solved"])],
        notices=notices,
        tables={"accuracy by label of the supporting context": accuracy},
    )
