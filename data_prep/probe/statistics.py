"""Numbers of a probe, from the answers to its questions. Pure functions.

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
from scipy.stats import t as student

from data_prep.audit.stats import wilson

# With fewer clusters, their spread says nothing.
_LEAST_CLUSTERS = 20


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
    _, number = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(number, weights=credit), np.bincount(number)
    count, mean = len(sums), float(credit.mean())
    if not 0 < mean < 1 or count < 2:
        return float(min(count, most))
    deviations = sums - mean * sizes
    variance = count / (count - 1) * float((deviations**2).sum()) / float(sizes.sum()) ** 2
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
    low, high = 1.0, 0.0
    for place, clusters in enumerate(clusterings):
        count = len(np.unique(clusters))
        if place and count < _LEAST_CLUSTERS:
            continue
        if count < 2:
            return 0.0, 1.0
        quantile = float(student.ppf(0.5 + level / 2, count - 1))
        one, other = wilson(float(credit.mean()), effective_number(credit, clusters, most), quantile)
        low, high = min(low, one), max(high, other)
    return low, high


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
    by_pair = questions.groupby("pair_id", sort=False)
    pairs = by_pair.agg(
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
    chance = float((1 / questions["options"]).mean())
    share = float(questions["first"].mean())
    low, high = interval(
        questions["credit"].to_numpy(float), _clusterings(questions), len(pairs)
    )  # fmt: skip
    found: dict[str, Any] = {
        "pairs": len(pairs),
        "couples": int(questions["couple"].nunique()),
        "questions": len(questions),
        "accuracy": float(questions["credit"].mean()),
        "low": low,
        "high": high,
        "chance": chance,
    }
    if len(whole):
        both = (whole["credit"] == 1).to_numpy(float)
        one, other = interval(both, _clusterings(whole), len(whole))
        found |= {
            "both_orders": float(both.mean()),
            "both_low": one,
            "both_high": other,
            "both_chance": float((1.0 / whole["options"].astype(float) ** whole["options"]).mean()),
            "consistency": float(((whole["contexts"] == 1) & (whole["worst"] >= 0)).mean()),
            "order_free": order_free_accuracy(questions[questions["pair_id"].isin(whole.index)]),
        }
    else:
        found |= dict.fromkeys(("both_orders", "both_low", "both_high", "both_chance", "consistency", "order_free"))
    return found | {
        "first_option_share": share,
        "position_bias": bias_of(share, chance),
        "training_position_bias": float((questions["first"] - (questions["right"] == 0)).mean()),
        "option_mass": _mean(questions["option_mass"]),
        "margin_mean": _mean(questions["margin"]),
        "no_choice": float(questions["no_choice"].mean()),
    }


def order_free_accuracy(questions: pd.DataFrame) -> float | None:
    """Share of pairs whose supporting context has the largest score, averaged over the orders it was shown in.

    Args:
        questions: every order of some pairs: ``pair_id``, ``order`` (contexts as shown, 0 supports), their ``scores``.

    Returns:
        None if some score was not read; a tie is wrong.
    """
    if questions["scores"].isna().any():
        return None
    right = []
    for _, asked in questions.groupby("pair_id", sort=False):
        sums = np.zeros(len(asked["order"].iloc[0]))
        for order, scores in zip(asked["order"], asked["scores"], strict=True):
            sums[list(order)] += scores
        right.append(sums[0] > sums[1:].max())
    return float(np.mean(right))


def _clusterings(table: pd.DataFrame) -> list[np.ndarray]:
    return [table["couple"].to_numpy(), table["component"].to_numpy()]


def _mean(column: pd.Series) -> float | None:
    known = column.dropna()
    return float(known.mean()) if len(known) else None


def terciles(values: Sequence[float | None]) -> list[str]:
    """A name for each value: which third it lies in, with its bounds; ``unknown`` for None.

    Equal values are never in different thirds, so fewer than three come out where many are equal.
    """
    known = np.asarray([value for value in values if value is not None], float)
    if not len(known):
        return ["unknown"] * len(values)
    edges = np.quantile(known, [1 / 3, 2 / 3])
    thirds = [-1 if value is None else int((value > edges).sum()) for value in values]
    names = {-1: "unknown"}
    for third, word in enumerate(("low", "middle", "high")):
        inside = [value for value, at in zip(values, thirds, strict=True) if at == third]
        if inside:
            names[third] = f"{word}: {min(inside):g} to {max(inside):g}"
    return [names[third] for third in thirds]


def choice_credit(scores: np.ndarray, right: int = 0) -> float:
    """The chance that the best score is the right one, equal best ones drawn at random."""
    best = np.flatnonzero(scores == scores.max())
    return float(right in best) / len(best)
