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

from contextrl_verl.errors import ConfigError
from data_prep.audit.stats import LEAST_CLUSTERS, variance_of_mean, wilson

_LEVEL = 0.95


def effective_number(credit: np.ndarray, clusters: Sequence[int], most: float) -> float:
    """The number of independent trials that would tell as much: p (1 - p) / (variance of the mean, from clusters).

    Where all credits [questions] are 0, or all 1, there is no spread to go by: the number of clusters. ``most`` is the
    number of pairs: that one order tells something new about a pair is not assumed.
    """
    mean = float(credit.mean())
    variance, count = variance_of_mean(credit, clusters)
    if not 0 < mean < 1 or count < 2:
        return float(min(count, most))
    return float(min(most, mean * (1 - mean) / variance)) if variance > 0 else float(most)


def interval(credit: np.ndarray, clusterings: Sequence[Sequence[int]], most: float) -> tuple[float, float]:
    """Two-sided interval of a share: the widest of the modified Wilson intervals over the clusterings.

    Args:
        credit: [questions] 0..1.
        clusterings: [questions] each, finest first; a coarser one counts if it has at least 20 clusters.
        most: number of pairs.
    """
    found = []
    for place, clusters in enumerate(clusterings):
        count = len(np.unique(clusters))
        if place and count < LEAST_CLUSTERS:
            continue
        if count < 2:
            return 0.0, 1.0
        quantile = float(student.ppf(0.5 + _LEVEL / 2, count - 1))
        found.append(wilson(float(credit.mean()), effective_number(credit, clusters, most), quantile))
    return min(low for low, _ in found), max(high for _, high in found)


def share(table: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """(mean of a column of credits, low, high), by the table's columns ``pair_id, couple, component``."""
    credit = table[column].to_numpy(float)
    return float(credit.mean()), *interval(credit, [table["couple"], table["component"]], table["pair_id"].nunique())


def numbers(questions: pd.DataFrame) -> dict[str, Any]:
    """All numbers of some questions.

    Args:
        questions: one row each, with the columns of :func:`data_prep.probe.run.table_of`.

    Returns:
        ``pairs, couples, questions``; ``accuracy`` with ``low, high``; ``chance``; ``both_orders`` (right in every
        order) and ``both_chance`` (if orders were guessed independently); ``consistency`` (the same context in every
        order); ``order_free`` (:func:`order_free_accuracy`); ``first_option_share, position_bias``;
        ``training_position_bias, option_mass, margin_mean`` as the metrics of training, None where logits were not
        read; ``no_choice``.
    """
    pairs = questions.groupby("pair_id", sort=False, as_index=False).agg(
        least=("credit", "min"), asked=("rotation", "size"), options=("options", "first"),
        contexts=("chosen_context", "nunique"), worst=("chosen_context", "min"),
    )  # fmt: skip
    # Pairs of which some order has no answer say nothing about orders.
    whole = pairs[pairs["asked"] == pairs["options"]]
    chance, first = float((1 / questions["options"]).mean()), float(questions["first"].mean())
    found: dict[str, Any] = {
        "pairs": len(pairs),
        "couples": int(questions["couple"].nunique()),
        "questions": len(questions),
        "chance": chance,
        "first_option_share": first,
        # 0 at chance, 1 for always the first; -1 for always the second of two.
        "position_bias": (first - chance) / (1 - chance),
        "training_position_bias": float((questions["first"] - (questions["right"] == 0)).mean()),
        "no_choice": float(questions["no_choice"].mean()),
        **dict.fromkeys(("both_orders", "both_chance", "consistency", "order_free")),
    }
    found["accuracy"], found["low"], found["high"] = share(questions, "credit")
    for name, column in (("option_mass", "option_mass"), ("margin_mean", "margin")):
        found[name] = None if questions[column].isna().all() else float(questions[column].mean())
    if len(whole):
        found["both_orders"] = float((whole["least"] == 1).mean())
        found["both_chance"] = float((1.0 / whole["options"].astype(float) ** whole["options"]).mean())
        found["consistency"] = float(((whole["contexts"] == 1) & (whole["worst"] >= 0)).mean())
        found["order_free"] = order_free_accuracy(questions[questions["pair_id"].isin(whole["pair_id"])])
    return found


def order_free_accuracy(questions: pd.DataFrame) -> float | None:
    """Share of pairs whose supporting context has the largest score on the average of the orders; a tie is wrong.

    Takes every order of some pairs: ``pair_id``, ``order`` (contexts as shown, 0 supports), their ``scores``; None if
    some were not read.
    """
    if questions["scores"].isna().any():
        return None
    shown = questions[["pair_id", "order", "scores"]].explode(["order", "scores"])
    sums = shown.astype({"scores": float}).groupby(["pair_id", "order"])["scores"].sum().unstack()
    return float((sums[0] > sums.drop(columns=0).max(axis=1)).mean())


def terciles(values: pd.Series) -> pd.Series:
    """Which third each value lies in, with its bounds; ``unknown`` for a missing one. Equal values stay together."""
    values = values.astype(float)
    thirds = sum((values > edge).astype(int) for edge in values.quantile([1 / 3, 2 / 3])).where(values.notna())
    ranges = values.groupby(thirds).agg(["min", "max"]).itertuples()
    named = {third: f"{('low', 'middle', 'high')[int(third)]}: {low:g} to {high:g}" for third, low, high in ranges}
    return thirds.map(named).astype(object).fillna("unknown")


def mcnemar(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Exact McNemar test, two-sided: among the [units] where the models differ, is each as often the better one?

    For credits other than 0 and 1 it is the sign test.
    """
    better, worse = int((one > other).sum()), int((one < other).sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return {"units": len(one), "better": better, "worse": worse, "p": p}


def paired_difference(one: np.ndarray, other: np.ndarray, clusters: Sequence[int]) -> tuple[float, float, float]:
    """(mean of one - other, low, high): Student's interval of the mean over clusters, each weighed by its size."""
    gains = one - other
    mean = float(gains.mean())
    variance, count = variance_of_mean(gains, clusters)
    if count < 2:
        return mean, -1.0, 1.0
    half = float(student.ppf(0.5 + _LEVEL / 2, count - 1)) * variance**0.5
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


def compare(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """Compare two tables of questions, joined by pair and order.

    Returns:
        ``accuracy, other_accuracy`` on the common questions, ``difference`` with ``low, high`` (by couple),
        ``only_here, only_there`` (questions that one table lacks) and ``tests``: :func:`mcnemar` by question, by pair
        (right in every order) and by couple (the sum of its credits).

    Raises:
        ConfigError: no question in common.
    """
    # By what is shown, not by the rotation's number, which depends on the seed.
    ours, theirs = (
        table.assign(shown=[tuple(map(int, order)) for order in table["order"]], one=table["credit"].astype(float))
        for table in (ours, theirs)
    )
    other = theirs[["pair_id", "shown", "one"]].rename(columns={"one": "other"})
    both = ours.merge(other, on=["pair_id", "shown"])
    if both.empty:
        raise ConfigError("--compare: the results have no question in common. Fix: probe the same pairs.")
    difference, low, high = paired_difference(both["one"].to_numpy(), both["other"].to_numpy(), both["couple"])
    # Right in every order means right once in as many orders as there are options.
    by_pair = both.groupby("pair_id", sort=False)
    whole = (by_pair[["one", "other"]].min() == 1)[by_pair.size() == by_pair["options"].first()]
    units = {
        "question": both,
        "pair in every order": whole.astype(int),
        "couple": both.groupby("couple", sort=False)[["one", "other"]].sum(),
    }
    tests = {unit: mcnemar(table["one"].to_numpy(), table["other"].to_numpy()) for unit, table in units.items()}
    return dict(
        questions=len(both), only_here=len(ours) - len(both), only_there=len(theirs) - len(both),
        accuracy=float(both["one"].mean()), other_accuracy=float(both["other"].mean()), difference=difference,
        low=low, high=high, tests=tests,
    )  # fmt: skip
