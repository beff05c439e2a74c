"""Two models on the same questions: exact McNemar tests, and the difference with its interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from scipy.stats import t as student

from data_prep.probe.questions import ProbeError

# What a test counts: questions as asked, pairs right in every order, and the sum over a couple.
UNITS = ("question", "pair in every order", "couple")


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
    _, number = np.unique(clusters, return_inverse=True)
    gains = one - other
    sums, sizes = np.bincount(number, weights=gains), np.bincount(number)
    mean, count = float(gains.mean()), len(sums)
    if count < 2:
        return mean, -1.0, 1.0
    variance = count / (count - 1) * float(((sums - mean * sizes) ** 2).sum()) / float(sizes.sum()) ** 2
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
    both = _keyed(ours).merge(_keyed(theirs)[["key", "credit"]], on="key", suffixes=("", "_other"))
    if both.empty:
        raise ProbeError("--compare: the results have no question in common. Fix: probe the same pairs.")
    one, other = both["credit"].to_numpy(float), both["credit_other"].to_numpy(float)
    difference, low, high = paired_difference(one, other, both["couple"].to_numpy())
    # Right in every order means right once in as many orders as there are options.
    by_pair = both.groupby("pair_id", sort=False).agg(
        one=("credit", "min"), other=("credit_other", "min"), asked=("credit", "size"), options=("options", "first")
    )
    whole = by_pair[by_pair["asked"] == by_pair["options"]]
    by_couple = both.groupby("couple", sort=False).agg(one=("credit", "sum"), other=("credit_other", "sum"))
    tests = {
        "question": mcnemar(one, other),
        "pair in every order": mcnemar((whole["one"] == 1).to_numpy(int), (whole["other"] == 1).to_numpy(int)),
        "couple": mcnemar(by_couple["one"].to_numpy(), by_couple["other"].to_numpy()),
    }
    return {
        "questions": len(both),
        "only_here": len(ours) - len(both),
        "only_there": len(theirs) - len(both),
        "accuracy": float(one.mean()),
        "other_accuracy": float(other.mean()),
        "difference": difference,
        "low": low,
        "high": high,
        "tests": tests,
    }


def read_result(option: str, path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """(summary, questions) of a probe.

    Args:
        option: for messages.
        path: its folder, or one of the two files in it.

    Raises:
        ProbeError: there is none.
    """
    folder = path if path.is_dir() else path.parent
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        table = pd.read_parquet(folder / "questions.parquet")
        table[["pair_id", "credit", "couple", "options"]]
        summary["pairs_digest"], summary["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProbeError(
            f"{option} {path}: there is no result of a probe ({error}). Fix: name the --out folder of one."
        ) from None
    return summary, table


def _keyed(table: pd.DataFrame) -> pd.DataFrame:
    # By what is shown, not by the rotation's number, which depends on the seed.
    shown = table["order"].map(lambda order: ",".join(str(int(index)) for index in order))
    return table.assign(key=table["pair_id"] + "\0" + shown)
