"""The folder of a probe: summary.json, questions.parquet, probe.md, probe.png, index.html; written, and read again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.whole_file import whole_file, write_whole
from data_prep.probe.run import Probe
from data_prep.probe.statistics import compare
from data_prep.report.page import Example, Histogram, write_report

_EXAMPLES = 3
# More rows cannot be read in the picture.
_MOST_ROWS = 24
# Column of the table -> the cell of some numbers.
_COLUMNS = {
    "pairs": "{pairs}",
    "accuracy": "{accuracy:.1%}",
    "95 % interval": "{low:.1%} to {high:.1%}",
    "every order": "{both_orders:.1%}",
    "order-free": "{order_free:.1%}",
    "consistent": "{consistency:.1%}",
    "first option": "{first_option_share:.1%}",
    "bias": "{position_bias:+.2f}",
    "mass": "{option_mass:.3g}",
    "margin": "{margin_mean:+.2f}",
}
_PLAIN = {name: _COLUMNS[name] for name in ("pairs", "accuracy", "95 % interval")}
_TESTS = {"units": "{units}", "better here": "{better}", "better there": "{worse}", "p": "{p:.3g}"}
_DIFFERENCE = "{difference:+.1%} (95 %: {low:+.1%} to {high:+.1%}) on {questions} common questions"


def _cell(numbers: dict[str, Any], form: str) -> str:
    try:
        return form.format(**numbers)
    except TypeError:  # None has no digits
        return "unknown"


def write_folder(
    folder: Path, found: Probe, made: dict[str, Any], pairs: Any, comparison: dict[str, Any] | None = None
) -> list[str]:
    """Write everything, and return the result in lines for the terminal.

    ``made`` tells how the probe was made, with the ``model``; ``pairs``, by row, are for the page's examples.
    """
    said = _notices(found)
    with whole_file(folder / "questions.parquet") as scratch:
        found.questions.to_parquet(scratch, index=False)
    with whole_file(folder / "probe.png") as scratch:
        _draw(scratch, found, f"{made['model']} on {made['pairs_file']}")
    write_whole(folder / "probe.md", _markdown(found, made, said, comparison))
    summary = {**made, **found.overall, "groups": found.groups, "baselines": found.baselines}
    margins, chosen = found.questions["margin"].dropna().tolist(), found.questions["chosen"].value_counts()
    write_report(
        folder,
        {**summary, **({"comparison": comparison} if comparison else {}), "notices": said},
        found.funnel,
        _examples(found, pairs),
        title=f"Probe of {made['model']}",
        histograms=[Histogram("margin of the supporting context (logits)", margins)] if margins else [],
        notices=said,
        tables={
            "accuracy by group": {f"{one['by']} {one['name']}": round(one["accuracy"], 4) for one in found.groups},
            "accuracy of baselines": {one["name"]: round(one["accuracy"], 4) for one in found.baselines},
            "chosen option (0: none)": {str(place + 1): count for place, count in chosen.sort_index().items()},
        },
    )
    against = [comparison_sentence(comparison)] if comparison else []
    return [_sentence(found.overall, made["model"]), *against, *(f"  {notice}" for notice in said)]


def read_result(option: str, folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """(summary, questions) of the probe in a folder; ConfigError, which names the option, if there is none."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        table = pd.read_parquet(folder / "questions.parquet")
        table[["pair_id", "credit", "couple", "options"]]
        summary["pairs_digest"], summary["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{option} {folder}: there is no result of a probe ({error}). Fix: name the --out folder of one."
        ) from None
    return summary, table


def _notices(found: Probe) -> list[str]:
    """Sentences on what makes the accuracy mean less than it seems."""
    numbers, said = found.overall, []
    if numbers["no_choice"] > 0.05:
        said.append(f"{numbers['no_choice']:.0%} of the replies name no option and count as wrong.")
    mass = numbers["option_mass"]
    if mass is not None and mass < 0.1:
        said.append(
            f"The labels have {mass:.2g} of the probability: the model would reply with something else. A prefill, or "
            "other chat template arguments, may change that."
        )
    if abs(numbers["position_bias"]) > 0.5:
        said.append(
            f"The model chooses by place: the first option in {numbers['first_option_share']:.0%} of the questions, "
            f"the same context in every order for {_cell(numbers, _COLUMNS['consistent'])} of the pairs."
        )
    words = max(found.baselines[1:], key=lambda one: one["accuracy"], default=None)
    if words and words["accuracy"] >= numbers["accuracy"] and words["low"] > numbers["chance"]:
        said.append(
            f"Overlap of words alone does as well ({words['name'].removeprefix('overlap: ')}: {words['accuracy']:.0%})."
        )
    return said


def _markdown(found: Probe, made: dict[str, Any], notices: list[str], comparison: dict[str, Any] | None) -> str:
    """``probe.md``: tables that can be pasted anywhere."""
    parts = [
        f"# Probe of {made['model']}",
        f"Pairs of `{made['pairs_file']}` in every order: "
        + _cell(found.overall, "{pairs} pairs, {questions} questions. Chance is {chance:.1%}."),
        "\n".join(f"- {text}" for text in notices),
        _table("group", _COLUMNS, _rows(found)),
        _table("without a model", _PLAIN, ((one["name"], one) for one in found.baselines)),
    ]
    if comparison:
        parts += [
            f"## Against {comparison['model']}",
            f"{made['model']} minus {comparison['model']}: {_cell(comparison, _DIFFERENCE)}.",
            _table("exact McNemar test by", _TESTS, comparison["tests"].items()),
        ]
    left_out = [f"- {count} ({stage.name}): {why}" for stage in found.funnel for why, count in stage.dropped.items()]
    parts += ["Left out:", "\n".join(left_out)] if left_out else []
    parts += ["Made by:", "\n".join(f"- {name}: {value}" for name, value in made.items())]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(head: str, columns: dict[str, str], rows: Iterable[tuple[str, dict[str, Any]]]) -> str:
    cells = [[head, *columns], *([name, *(_cell(one, form) for form in columns.values())] for name, one in rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|---" + "|---:" * len(columns) + "|", *lines[1:]])


def _rows(found: Probe) -> list[tuple[str, dict[str, Any]]]:
    """All questions, and every group of which there are several."""
    several = [one for one in found.groups if sum(other["by"] == one["by"] for other in found.groups) > 1]
    return [("all", found.overall), *((f"{one['by']} {one['name']}", one) for one in several)]


def _sentence(numbers: dict[str, Any], model: str) -> str:
    """The result in one line."""
    cells = [f"{name} {_cell(numbers, form)}" for name, form in _COLUMNS.items()]
    return f"{model}: {numbers['questions']} questions, chance {numbers['chance']:.1%}; {', '.join(cells)}"


def compared(ours: tuple[dict[str, Any], pd.DataFrame], theirs: tuple[dict[str, Any], pd.DataFrame]) -> dict[str, Any]:
    """:func:`data_prep.probe.statistics.compare` two probes, (summary, questions) each, with their models' names."""
    return {"here": ours[0]["model"], "model": theirs[0]["model"], **compare(ours[1], theirs[1])}


def comparison_sentence(comparison: dict[str, Any]) -> str:
    """The comparison in one line."""
    test, couples = comparison["tests"]["question"], comparison["tests"]["couple"]
    there = comparison["model"]
    return (
        f"against {there}: {_cell(comparison, _DIFFERENCE)}; {test['better']} right only by {comparison['here']}, "
        f"{test['worse']} only by {there}: exact McNemar p = {test['p']:.3g} (by couple {couples['p']:.3g})"
    )


def _examples(found: Probe, pairs: Any) -> Iterator[Example]:
    """A few pairs of each outcome."""
    by_row = (found.questions["credit"] == 1).groupby(found.questions["row"]).agg(["sum", "size"])
    for row, (right, asked) in by_row.groupby(["sum", "size"]).head(_EXAMPLES).iterrows():
        outcome = f"right in {right} of {asked} orders"
        yield Example.of(pairs[int(row)], "right" if right == asked else "wrong", outcome)


def _draw(path: Path, found: Probe, title: str) -> None:
    """The PNG: accuracy by group, with its interval, and of overlap of words."""
    from matplotlib.figure import Figure

    baselines = [(one["name"], one, "0.55") for one in found.baselines[1:]]
    rows = [(*row, "tab:cyan" if at else "tab:blue") for at, row in enumerate(_rows(found))]
    rows = [*rows[: _MOST_ROWS - len(baselines)], *baselines]
    figure = Figure(figsize=(8, max(3.6, 0.34 * len(rows) + 1.2)), layout="constrained")
    axes = figure.subplots()
    for place, (_, row, color) in enumerate(rows):
        span = [row["low"], row["accuracy"], row["high"]]
        axes.plot(span, [place] * 3, "o-", markevery=[1], color=color, linewidth=2)
    axes.axvline(found.overall["chance"], color="0.6", linestyle=":")
    axes.set(title="Selection accuracy, 95 % intervals (pairs)", xlim=(-0.02, 1.02))
    axes.set_yticks(range(len(rows)), [f"{name} ({row['pairs']})" for name, row, _ in rows], fontsize=8)
    axes.invert_yaxis()
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130, format="png")
