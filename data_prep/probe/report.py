"""The folder of a probe: summary.json, questions.parquet, probe.md, probe.png, index.html."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextrl_verl.pairs.whole_file import write_whole
from data_prep.probe.comparison import UNITS
from data_prep.probe.picture import draw
from data_prep.probe.run import Probe
from data_prep.report.page import Example, Histogram, Notice, write_report

_EXAMPLES = 3
_COLUMNS = [
    *("group", "pairs", "accuracy", "95 % interval", "every order", "order-free", "consistent"),
    *("first option", "bias", "mass", "margin"),
]


def write_folder(
    folder: Path, found: Probe, made: dict[str, Any], pairs: Any, comparison: dict[str, Any] | None = None
) -> list[str]:
    """Write everything.

    Args:
        made: what tells how the probe was made; ``model`` is its name.
        pairs: the pairs, by row, for the page's examples.
        comparison: of :func:`data_prep.probe.comparison.compare`, with ``model``.

    Returns:
        the notices: sentences on what a reader must know before the numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = notices_of(found)
    scratch = folder / ".questions.parquet.part"
    found.questions.to_parquet(scratch, index=False)
    scratch.replace(folder / "questions.parquet")
    draw(folder / "probe.png", found, f"{made['model']} on {made['pairs_file']}")
    write_whole(folder / "probe.md", markdown(found, made, said, comparison))
    summary = {
        **made,
        **found.overall,
        "groups": found.groups,
        "baselines": found.baselines,
        **({"comparison": comparison} if comparison else {}),
        "notices": said,
    }
    tables = {
        "accuracy by group": {f"{one['by']} {one['name']}": round(one["accuracy"], 4) for one in found.groups},
        "accuracy of baselines": {one["name"]: round(one["accuracy"], 4) for one in found.baselines},
    }
    margins = found.questions["margin"].dropna().tolist()
    write_report(
        folder,
        summary,
        found.funnel,
        _examples(found, pairs),
        title=f"Probe of {made['model']}",
        histograms=[Histogram("margin of the supporting context (logits)", margins)] if margins else [],
        notices=[Notice(text, "plain") for text in said],
        tables=tables,
    )
    return said


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
    words = max(
        (one for one in found.baselines if one["name"] != "chance"), key=lambda one: one["accuracy"], default={}
    )
    if words and words["accuracy"] >= numbers["accuracy"] and words["low"] > numbers["chance"]:
        said.append(
            f"Overlap of words alone does as well ({words['name'].removeprefix('overlap: ')}: {words['accuracy']:.0%})."
        )
    return said


def markdown(found: Probe, made: dict[str, Any], said: list[str], comparison: dict[str, Any] | None = None) -> str:
    """``probe.md``: tables that can be pasted anywhere."""
    numbers = found.overall
    lines = [
        f"# Probe of {made['model']}",
        "",
        f"{numbers['pairs']} pairs of `{made['pairs_file']}` in every order: {numbers['questions']} questions. "
        f"Chance is {numbers['chance']:.1%}.",
        "",
        *(f"- {text}" for text in said),
        *([""] if said else []),
        "| " + " | ".join(_COLUMNS) + " |",
        "|---" + "|---:" * (len(_COLUMNS) - 1) + "|",
        _row("all", numbers),
    ]
    several = [one for one in found.groups if sum(other["by"] == one["by"] for other in found.groups) > 1]
    lines += [_row(f"{one['by']} {one['name']}", one) for one in several]
    lines += ["", "| without a model | pairs | accuracy | 95 % interval |", "|---|---:|---:|---:|"]
    lines += [
        f"| {one['name']} | {one['pairs']} | {one['accuracy']:.1%} | {_interval(one)} |" for one in found.baselines
    ]
    if comparison:
        lines += ["", *_comparison(comparison, made["model"])]
    dropped = [(stage.name, reason, count) for stage in found.funnel for reason, count in stage.dropped.items()]
    if dropped:
        lines += ["", "Left out:", "", *(f"- {count} ({stage}): {reason}" for stage, reason, count in dropped)]
    lines += ["", "Made by:", "", *(f"- {name}: {value}" for name, value in made.items())]
    return "\n".join(lines) + "\n"


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
    test = comparison["tests"]["question"]
    couples = comparison["tests"]["couple"]
    return (
        f"against {comparison['model']}: {comparison['difference']:+.1%} (95 %: {comparison['low']:+.1%} to "
        f"{comparison['high']:+.1%}) on {comparison['questions']} common questions; {test['better']} right only by "
        f"{model}, {test['worse']} only by {comparison['model']}: exact McNemar p = {test['p']:.3g} (by couple "
        f"{couples['p']:.3g})"
    )


def _comparison(comparison: dict[str, Any], model: str) -> list[str]:
    lines = [
        f"## Against {comparison['model']}",
        "",
        f"{model} minus {comparison['model']} on {comparison['questions']} common questions: "
        f"{comparison['difference']:+.1%} (95 %: {comparison['low']:+.1%} to {comparison['high']:+.1%}).",
        "",
        "| exact McNemar test by | units | better here | better there | p |",
        "|---|---:|---:|---:|---:|",
    ]
    for unit in UNITS:
        test = comparison["tests"][unit]
        lines.append(f"| {unit} | {test['units']} | {test['better']} | {test['worse']} | {test['p']:.3g} |")
    return lines


def _row(name: str, numbers: dict[str, Any]) -> str:
    cells = [
        name,
        str(numbers["pairs"]),
        f"{numbers['accuracy']:.1%}",
        _interval(numbers),
        _percent(numbers["both_orders"]),
        _percent(numbers["order_free"]),
        _percent(numbers["consistency"]),
        f"{numbers['first_option_share']:.1%}",
        f"{numbers['position_bias']:+.2f}",
        "" if numbers["option_mass"] is None else f"{numbers['option_mass']:.3g}",
        "" if numbers["margin_mean"] is None else f"{numbers['margin_mean']:+.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _interval(numbers: dict[str, Any]) -> str:
    return f"{numbers['low']:.1%} to {numbers['high']:.1%}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _examples(found: Probe, pairs: Any) -> Iterator[Example]:
    """A few pairs of each outcome."""
    shown: dict[str, int] = {}
    for row, questions in found.questions.groupby("row", sort=True):
        right = int((questions["credit"] == 1).sum())
        outcome = f"right in {right} of {len(questions)} orders"
        if shown.get(outcome, 0) < _EXAMPLES:
            shown[outcome] = shown.get(outcome, 0) + 1
            yield Example.of(pairs[int(row)], "right" if right == len(questions) else "wrong", outcome)
