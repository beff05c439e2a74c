"""The folder of a probe: summary.json, questions.parquet, probe.md, probe.png, index.html; written, and read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from contextrl_verl.pairs.whole_file import whole_file, write_whole
from data_prep.probe.questions import ProbeError
from data_prep.probe.run import Probe
from data_prep.report.page import Example, Histogram, Notice, write_report

_EXAMPLES = 3
# More rows cannot be read in the picture.
_MOST_ROWS = 24


def _optional(how: str, missing: str = "") -> Any:
    return lambda value: missing if value is None else format(value, how)


def _interval(numbers: dict[str, Any]) -> str:
    return f"{numbers['low']:.1%} to {numbers['high']:.1%}"


_percent = _optional(".1%", "unknown")
# Column of the table -> the cell of some numbers.
_COLUMNS = {
    "pairs": lambda numbers: str(numbers["pairs"]),
    "accuracy": lambda numbers: f"{numbers['accuracy']:.1%}",
    "95 % interval": _interval,
    "every order": lambda numbers: _percent(numbers["both_orders"]),
    "order-free": lambda numbers: _percent(numbers["order_free"]),
    "consistent": lambda numbers: _percent(numbers["consistency"]),
    "first option": lambda numbers: f"{numbers['first_option_share']:.1%}",
    "bias": lambda numbers: f"{numbers['position_bias']:+.2f}",
    "mass": lambda numbers: _optional(".3g")(numbers["option_mass"]),
    "margin": lambda numbers: _optional("+.2f")(numbers["margin_mean"]),
}


def write_folder(
    folder: Path, found: Probe, made: dict[str, Any], pairs: Any, comparison: dict[str, Any] | None = None
) -> list[str]:
    """Write everything.

    Args:
        made: what tells how the probe was made; ``model`` is its name.
        pairs: the pairs, by row, for the page's examples.
        comparison: of :func:`data_prep.probe.statistics.compare`, with ``model``.

    Returns:
        the notices: sentences on what a reader must know before the numbers.
    """
    said = notices_of(found)
    with whole_file(folder / "questions.parquet") as scratch:
        found.questions.to_parquet(scratch, index=False)
    with whole_file(folder / "probe.png") as scratch:
        draw(scratch, found, f"{made['model']} on {made['pairs_file']}")
    write_whole(folder / "probe.md", markdown(found, made, said, comparison))
    summary = {**made, **found.overall, "groups": found.groups, "baselines": found.baselines}
    margins = found.questions["margin"].dropna().tolist()
    write_report(
        folder,
        {**summary, **({"comparison": comparison} if comparison else {}), "notices": said},
        found.funnel,
        _examples(found, pairs),
        title=f"Probe of {made['model']}",
        histograms=[Histogram("margin of the supporting context (logits)", margins)] if margins else [],
        notices=[Notice(text, "plain") for text in said],
        tables={
            "accuracy by group": {f"{one['by']} {one['name']}": round(one["accuracy"], 4) for one in found.groups},
            "accuracy of baselines": {one["name"]: round(one["accuracy"], 4) for one in found.baselines},
        },
    )
    return said


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


def notices_of(found: Probe) -> list[str]:
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
            f"the same context in every order for {_percent(numbers['consistency'])} of the pairs."
        )
    words = max(found.baselines[1:], key=lambda one: one["accuracy"], default=None)
    if words and words["accuracy"] >= numbers["accuracy"] and words["low"] > numbers["chance"]:
        said.append(
            f"Overlap of words alone does as well ({words['name'].removeprefix('overlap: ')}: {words['accuracy']:.0%})."
        )
    return said


def markdown(found: Probe, made: dict[str, Any], said: list[str], comparison: dict[str, Any] | None = None) -> str:
    """``probe.md``: tables that can be pasted anywhere."""
    numbers, model = found.overall, made["model"]
    lines = [
        f"# Probe of {model}",
        "",
        f"{numbers['pairs']} pairs of `{made['pairs_file']}` in every order: {numbers['questions']} questions. "
        f"Chance is {numbers['chance']:.1%}.",
        "",
        *(f"- {text}" for text in said),
        *([""] if said else []),
        *_table(
            ["group", *_COLUMNS], [[name, *(cell(one) for cell in _COLUMNS.values())] for name, one in _rows(found)]
        ),
        "",
        *_table(
            ["without a model", "pairs", "accuracy", "95 % interval"],
            [[one["name"], str(one["pairs"]), f"{one['accuracy']:.1%}", _interval(one)] for one in found.baselines],
        ),
    ]
    if comparison:
        tests = comparison["tests"].items()
        lines += [
            "",
            f"## Against {comparison['model']}",
            "",
            f"{model} minus {comparison['model']} on {comparison['questions']} common questions: "
            f"{comparison['difference']:+.1%} (95 %: {comparison['low']:+.1%} to {comparison['high']:+.1%}).",
            "",
            *_table(
                ["exact McNemar test by", "units", "better here", "better there", "p"],
                [
                    [unit, *(str(test[k]) for k in ("units", "better", "worse")), f"{test['p']:.3g}"]
                    for unit, test in tests
                ],
            ),
        ]
    dropped = [f"- {count} ({stage.name}): {why}" for stage in found.funnel for why, count in stage.dropped.items()]
    if dropped:
        lines += ["", "Left out:", "", *dropped]
    lines += ["", "Made by:", "", *(f"- {name}: {value}" for name, value in made.items())]
    return "\n".join(lines) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return [lines[0], "|---" + "|---:" * (len(head) - 1) + "|", *lines[1:]]


def _rows(found: Probe) -> list[tuple[str, dict[str, Any]]]:
    """All questions, and every group of which there are several."""
    several = [one for one in found.groups if sum(other["by"] == one["by"] for other in found.groups) > 1]
    return [("all", found.overall), *((f"{one['by']} {one['name']}", one) for one in several)]


def sentence(found: Probe, model: str) -> str:
    """The result in one line, for the terminal."""
    numbers = found.overall
    mass = "" if numbers["option_mass"] is None else f", option mass {numbers['option_mass']:.3g}"
    return (
        f"{model}: {numbers['accuracy']:.1%} of {numbers['questions']} questions right (95 %: {_interval(numbers)}, "
        f"chance {numbers['chance']:.1%}); right in every order {_percent(numbers['both_orders'])}, by scores averaged "
        f"over the orders {_percent(numbers['order_free'])}, same context in every order "
        f"{_percent(numbers['consistency'])}; position bias {numbers['position_bias']:+.2f} (first option "
        f"{numbers['first_option_share']:.1%}){mass}"
    )


def comparison_sentence(comparison: dict[str, Any], model: str) -> str:
    """The comparison in one line."""
    test, couples = comparison["tests"]["question"], comparison["tests"]["couple"]
    return (
        f"against {comparison['model']}: {comparison['difference']:+.1%} (95 %: {comparison['low']:+.1%} to "
        f"{comparison['high']:+.1%}) on {comparison['questions']} common questions; {test['better']} right only by "
        f"{model}, {test['worse']} only by {comparison['model']}: exact McNemar p = {test['p']:.3g} (by couple "
        f"{couples['p']:.3g})"
    )


def _examples(found: Probe, pairs: Any) -> Iterator[Example]:
    """A few pairs of each outcome."""
    by_row = found.questions.assign(right=found.questions["credit"] == 1).groupby("row")["right"].agg(["sum", "size"])
    for row, (right, asked) in by_row.groupby(["sum", "size"]).head(_EXAMPLES).iterrows():
        outcome = f"right in {right} of {asked} orders"
        yield Example.of(pairs[int(row)], "right" if right == asked else "wrong", outcome)


def draw(path: Path, found: Probe, title: str) -> None:
    """The PNG: accuracy by group, margins, and which option the model likes."""
    from matplotlib.figure import Figure

    baselines = found.baselines[1:]
    rows = [(*row, "tab:cyan" if at else "tab:blue") for at, row in enumerate(_rows(found))]
    rows = rows[: _MOST_ROWS - len(baselines)] + [(one["name"], one, "0.55") for one in baselines]
    figure = Figure(figsize=(14, max(3.6, 0.34 * len(rows) + 1.2)), layout="constrained")
    axes = figure.subplots(1, 3, gridspec_kw={"width_ratios": [2, 1.3, 1]})
    for place, (_, row, color) in enumerate(rows):
        axes[0].plot([row["low"], row["high"]], [place, place], color=color, linewidth=2)
        axes[0].plot(row["accuracy"], place, "o", color=color)
    axes[0].axvline(found.overall["chance"], color="0.6", linestyle=":")
    axes[0].set(title="Selection accuracy, 95 % intervals (pairs)", xlim=(-0.02, 1.02))
    axes[0].set_yticks(range(len(rows)), [f"{name} ({row['pairs']})" for name, row, _ in rows], fontsize=8)
    axes[0].invert_yaxis()
    _draw_margins(axes[1], found.questions.dropna(subset=["margin"]))
    chosen = found.questions["chosen"]
    places = range(int(found.questions["options"].max()))
    shares = {f"option {place + 1}": float((chosen == place).mean()) for place in places}
    if (chosen < 0).any():
        shares["none"] = float((chosen < 0).mean())
    axes[2].bar(list(shares), list(shares.values()), color="tab:orange")
    axes[2].axhline(found.overall["chance"], color="0.6", linestyle=":")
    axes[2].set(title=f"Chosen; position bias {found.overall['position_bias']:+.2f}", ylim=(0, 1.02))
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130, format="png")


def _draw_margins(axis: Any, table: pd.DataFrame) -> None:
    axis.set(title="Margin of the supporting context", xlabel="logits", ylabel="questions")
    if table.empty:
        axis.text(0.5, 0.5, "replies were sampled:\nno logits", ha="center", va="center", transform=axis.transAxes)
        return
    margins = {f"option {place + 1}": one.to_numpy() for place, one in table.groupby("right")["margin"]}
    axis.hist(list(margins.values()), min(40, max(5, len(table) // 8)), stacked=True, label=list(margins))
    axis.axvline(0, color="0.3", linewidth=1)
    # Room for the legend above the bars.
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])
    axis.legend(title="it is shown as", fontsize=8, title_fontsize=8, frameon=False, loc="upper center")
