"""Numbers of a probe, from the answers to its questions, and two probes compared. Pure functions.

Questions depend on each other: the orders of a pair show the same contexts, and so do the directions of a couple. So
an interval is Wilson's, modified for clusters as survey samples do it: the number of trials is the effective one (that
of independent trials with the variance that is found between couples), never more than there are pairs, and the normal
quantile is Student's for one less than the number of couples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from scipy.stats import t as student

from data_prep.audit.stats import wilson
from data_prep.probe.questions import ProbeError

# With fewer clusters, their spread says nothing.
_LEAST_CLUSTERS = 20
# What a test of two models counts: questions as asked, pairs right in every order, and the sum over a couple.
UNITS = ("question", "pair in every order", "couple")


def _variance_of_mean(values: np.ndarray, clusters: np.ndarray) -> tuple[float, int]:
    """(variance of the mean from the spread between clusters, number of clusters); at least two clusters."""
    _, number = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(number, weights=values), np.bincount(number)
    count = len(sums)
    squares = float(((sums - values.mean() * sizes) ** 2).sum())
    return (count / (count - 1) * squares / len(values) ** 2 if count > 1 else 0.0), count


def effective_number(credit: np.ndarray, clusters: np.ndarray, most: float) -> float:
    """The number of independent trials that would tell as much.

    Args:
        credit: [questions] 0..1.
        clusters: [questions] number of the cluster of each; questions of different clusters are independent.
        most: upper limit, the number of pairs: that one order tells something new about a pair is not assumed.

    Returns:
        p (1 - p) / (variance of the mean, from the spread between clusters), at most ``most``. Where all credits are 0,
        or all 1, there is no spread to go by, and it is the number of clusters.
    """
    mean = float(credit.mean())
    variance, count = _variance_of_mean(credit, clusters)
    if not 0 < mean < 1 or count < 2:
        return float(min(count, most))
    return float(min(most, mean * (1 - mean) / variance)) if variance > 0 else float(most)


def interval(
    credit: np.ndarray, clusterings: Sequence[np.ndarray], most: float, level: float = 0.95
) -> tuple[float, float]:
    """Two-sided interval of a share: the widest of the modified Wilson intervals over the clusterings.

    Args:
        credit: [questions] 0..1.
        clusterings: [questions] each, finest first; a coarser one counts if it has at least 20 clusters.
        most: number of pairs.
    """
    found = []
    for place, clusters in enumerate(clusterings):
        count = len(np.unique(clusters))
        if place and count < _LEAST_CLUSTERS:
            continue
        if count < 2:
            return 0.0, 1.0
        quantile = float(student.ppf(0.5 + level / 2, count - 1))
        found.append(wilson(float(credit.mean()), effective_number(credit, clusters, most), quantile))
    return min(low for low, _ in found), max(high for _, high in found)


def bias_of(share: float, chance: float) -> float:
    """Position bias from the share of replies that choose the first option: 0 at chance, 1 for always the first.

    With two options it is ``2 * share - 1``, and -1 means always the second.
    """
    return (share - chance) / (1 - chance)


def numbers(questions: pd.DataFrame) -> dict[str, Any]:
    """All numbers of some questions.

    Args:
        questions: one row each, with the columns of :func:`data_prep.probe.run.table_of`.

    Returns:
        ``pairs, couples, questions``; ``accuracy`` with ``low, high``; ``chance``; ``both_orders`` (right in every
        order) with ``both_low, both_high, both_chance`` (if orders were guessed independently); ``consistency`` (the
        same context in every order); ``order_free`` (right by scores averaged over the orders, of which a bias to a
        place is no part; None where logits were not read); ``first_option_share, position_bias``;
        ``training_position_bias, option_mass, margin_mean`` as the metrics of training, None where logits were not
        read; ``no_choice``.
    """
    pairs = questions.groupby("pair_id", sort=False).agg(
        credit=("credit", "min"),
        couple=("couple", "first"),
        component=("component", "first"),
        asked=("rotation", "size"),
        options=("options", "first"),
        contexts=("chosen_context", "nunique"),
        worst=("chosen_context", "min"),
    )
    # Pairs of which some order has no answer say nothing about orders.
    whole = pairs[pairs["asked"] == pairs["options"]]
    chance, share = float((1 / questions["options"]).mean()), float(questions["first"].mean())
    low, high = _interval(questions["credit"], questions, len(pairs))
    found: dict[str, Any] = {
        "pairs": len(pairs),
        "couples": int(questions["couple"].nunique()),
        "questions": len(questions),
        "accuracy": float(questions["credit"].mean()),
        "low": low,
        "high": high,
        "chance": chance,
    }
    found |= dict.fromkeys(("both_orders", "both_low", "both_high", "both_chance", "consistency", "order_free"))
    if len(whole):
        both = whole["credit"] == 1
        found["both_orders"] = float(both.mean())
        found["both_low"], found["both_high"] = _interval(both, whole, len(whole))
        found["both_chance"] = float((1.0 / whole["options"].astype(float) ** whole["options"]).mean())
        found["consistency"] = float(((whole["contexts"] == 1) & (whole["worst"] >= 0)).mean())
        found["order_free"] = order_free_accuracy(questions[questions["pair_id"].isin(whole.index)])
    return found | {
        "first_option_share": share,
        "position_bias": bias_of(share, chance),
        "training_position_bias": float((questions["first"] - (questions["right"] == 0)).mean()),
        **{
            name: None if questions[column].isna().all() else float(questions[column].mean())
            for name, column in (("option_mass", "option_mass"), ("margin_mean", "margin"))
        },
        "no_choice": float(questions["no_choice"].mean()),
    }


def _interval(credit: pd.Series, table: pd.DataFrame, pairs: int) -> tuple[float, float]:
    return interval(credit.to_numpy(float), [table[name].to_numpy() for name in ("couple", "component")], pairs)


def order_free_accuracy(questions: pd.DataFrame) -> float | None:
    """Share of pairs whose supporting context has the largest score, averaged over the orders it was shown in.

    Args:
        questions: every order of some pairs: ``pair_id``, ``order`` (contexts as shown, 0 supports), their ``scores``.

    Returns:
        None if some score was not read; a tie is wrong.
    """
    if questions["scores"].isna().any():
        return None
    shown = questions[["pair_id", "order", "scores"]].explode(["order", "scores"])
    sums = shown.astype({"scores": float}).groupby(["pair_id", "order"])["scores"].sum().unstack()
    return float((sums[0] > sums.drop(columns=0).max(axis=1)).mean())


def terciles(values: Sequence[float | None]) -> list[str]:
    """A name for each value: which third it lies in, with its bounds; ``unknown`` for None.

    Equal values are never in different thirds, so fewer than three come out where many are equal.
    """
    column = pd.Series(values, dtype=float)
    if column.isna().all():
        return ["unknown"] * len(values)
    edges = np.quantile(column.dropna(), [1 / 3, 2 / 3])
    thirds = column.map(lambda value: ("low", "middle", "high")[int((value > edges).sum())], na_action="ignore")
    names = {third: f"{third}: {one.min():g} to {one.max():g}" for third, one in column.groupby(thirds)}
    return thirds.map(names).fillna("unknown").tolist()


def choice_credit(scores: np.ndarray, right: int = 0) -> float:
    """The chance that the best score is the right one, equal best ones drawn at random."""
    best = np.flatnonzero(scores == scores.max())
    return float(right in best) / len(best)


def mcnemar(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Exact McNemar test: among the units where the models differ, is each as often the better one?

    Args:
        one, other: [units] credit of both models; for credits other than 0 and 1 it is the sign test.

    Returns:
        ``units, better, worse`` (``one`` above and below ``other``) and the two-sided ``p``.
    """
    better, worse = int((one > other).sum()), int((one < other).sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return {"units": len(one), "better": better, "worse": worse, "p": p}


def paired_difference(
    one: np.ndarray, other: np.ndarray, clusters: np.ndarray, level: float = 0.95
) -> tuple[float, float, float]:
    """(mean of one - other, low, high): Student's interval of the mean over clusters, each weighed by its size."""
    gains = one - other
    mean = float(gains.mean())
    variance, count = _variance_of_mean(gains, clusters)
    if count < 2:
        return mean, -1.0, 1.0
    half = float(student.ppf(0.5 + level / 2, count - 1)) * variance**0.5
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


def compare(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """Compare two tables of questions, joined by pair and order.

    Returns:
        ``accuracy, other_accuracy`` on the common questions, ``difference`` with ``low, high`` (by couple),
        ``only_here, only_there`` (questions that one table lacks) and ``tests`` by :data:`UNITS`.

    Raises:
        ProbeError: no question in common.
    """
    # By what is shown, not by the rotation's number, which depends on the seed.
    ours, theirs = (
        table.assign(shown=table["order"].map(lambda order: tuple(map(int, order)))) for table in (ours, theirs)
    )
    both = ours.merge(theirs[["pair_id", "shown", "credit"]], on=["pair_id", "shown"], suffixes=("", "_other"))
    if both.empty:
        raise ProbeError("--compare: the results have no question in common. Fix: probe the same pairs.")
    both = both.rename(columns={"credit": "one", "credit_other": "other"}).astype({"one": float, "other": float})
    difference, low, high = paired_difference(
        both["one"].to_numpy(), both["other"].to_numpy(), both["couple"].to_numpy()
    )
    # Right in every order means right once in as many orders as there are options.
    by_pair = both.groupby("pair_id", sort=False)
    whole = (by_pair[["one", "other"]].min() == 1)[by_pair.size() == by_pair["options"].first()]
    counted = (both, whole.astype(int), both.groupby("couple", sort=False)[["one", "other"]].sum())
    return {
        "questions": len(both),
        "only_here": len(ours) - len(both),
        "only_there": len(theirs) - len(both),
        "accuracy": float(both["one"].mean()),
        "other_accuracy": float(both["other"].mean()),
        "difference": difference,
        "low": low,
        "high": high,
        "tests": {
            unit: mcnemar(table["one"].to_numpy(), table["other"].to_numpy())
            for unit, table in zip(UNITS, counted, strict=True)
        },
    }
