"""The report of a difficulty filter: how often each pair was solved, by which label, and examples of each outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextrl_verl.pairs.files import PairFile
from data_prep.common.funnel import Funnel
from data_prep.difficulty.solve_rate import Tally
from data_prep.report.page import Example, Histogram, Notice, write_report


def write_page(
    folder: Path,
    file: PairFile,
    found: dict[str, Tally],
    reasons: dict[str, str],
    funnel: Funnel,
    *,
    model: str,
    tries: int,
    usage: dict[str, Any],
) -> Path:
    """Write ``index.html`` and ``summary.json``; returns the page's path."""
    every = found.values()
    solved = Counter(tally.solved for tally in every)
    right, tried = (sum((getattr(tally, name) for tally in every), Counter()) for name in ("right", "tried"))
    accuracy = {label: round(right[label] / tried[label], 4) for label in sorted(tried)}
    replies, unparsed = tried.total(), sum(tally.unparsed for tally in every)
    summary = {
        "model": model,
        "pairs_in": len(file),
        "pairs": len(file) - len(reasons),
        "tries_of_each": tries,
        "replies": replies,
        "accuracy": round(right.total() / replies, 4) if replies else None,
        "unparsed": unparsed,
        "solved": {str(count): solved[count] for count in range(tries + 1)},
        "accuracy_by_label": accuracy,
        "solver": usage,
    }
    notices = []
    if unparsed > 0.2 * replies:
        said = (
            f"{unparsed / replies:.0%} of the replies name no option, and count as not solved: they may be cut "
            "(raise max_tokens) or the model does not follow the question."
        )
        notices.append(Notice(said, "bad"))
    if accuracy and max(accuracy.values()) - min(accuracy.values()) > 0.2:
        notices.append(Notice(f"The model prefers a position: accuracy by label is {accuracy}."))
    return write_report(
        folder,
        summary,
        funnel,
        _examples(file, found, reasons),
        title=f"Difficulty for {model}",
        histograms=[Histogram("solved tries of a pair", [tally.solved for tally in every])],
        notices=notices,
        tables={"pairs by solved tries": summary["solved"], "accuracy by label of the supporting context": accuracy},
    )


def _examples(file: PairFile, found: dict[str, Tally], reasons: dict[str, str], each: int = 3) -> Iterator[Example]:
    shown: Counter[str] = Counter()
    for pair in file:
        reason, tally = reasons.get(pair.pair_id, ""), found[pair.pair_id]
        if shown[reason] < each:
            shown[reason] += 1
            solved = f"{tally.solved} of {tally.tried.total()}"
            yield Example.of(pair, "dropped" if reason else "kept", reason, solved=solved)
