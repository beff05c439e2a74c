"""The report in Markdown from ``results.json``: for a run's folder, and as the page docs/replication.md."""

from __future__ import annotations

from typing import Any

from bench.replication.results import BASELINE, OTHERS_MEAN, ROWS, SELECTION
from bench.replication.statistics import MARK
from bench.replication.tasks import MAIN
from contextrl_verl.arms import MEANING

_NAMES = {MAIN: f"{MAIN} (trained)", OTHERS_MEAN: "**five untrained tasks**", SELECTION: "held-out selection"}
# Mean difference to grpo over the paper's benchmarks (Table 4 and the abstract; Table 3 for da_sft's agents).
PAPER = {
    "contextrl": "better than grpo: +2.2 points over five agentic, +1.8 over twelve visual benchmarks",
    "da_rl": "about grpo (+0.4 visual, between -0.6 and +0.3 agentic); selection accuracy stays near the base",
    "da_sft": "selection accuracy 85 to 93 %, but agents collapse (28.0 to 6.4 and 6.2 to 0.0 on SWE-bench Verified)",
    "da_qca": "little or no gain over grpo",
}
# The paper's sign of the difference on untrained tasks: above, about the same, below.
_SIGN = {"contextrl": 1, "da_rl": 0, "da_sft": -1, "da_qca": 0}


def markdown(results: dict[str, Any], picture: str) -> str:
    """The figures of a run: claim, differences, scores, cost, comparison with the paper, Gemma, how it was made."""
    parts = [
        f"**Selection.** {results['claim']['told']}",
        differences_table(results),
        scores_table(results),
        f"![Learning curves of all arms]({picture})",
        "**Cost**, means over seeds; seconds are those of the machine that ran it.",
        cost_table(results),
        "**Next to the paper**",
        paper_table(results),
        gemma_text(results["gemma"]),
        made_text(results),
    ]
    if results["missing"]:
        parts.insert(0, f"**Not complete.** Cells that are missing: {', '.join(results['missing'])}.")
    return "\n\n".join(parts) + "\n"


def differences_table(results: dict[str, Any]) -> str:
    arms = [arm for arm in results["arms"] if arm != BASELINE and results["arms"][arm]["to_grpo"]]
    if not arms:
        return "No arm ran on a seed that grpo has, so there is no difference to tell."
    lines = [
        "Difference to grpo in points of accuracy, with its 95 % interval over seeds and items; in brackets the "
        "interval over items alone, for these very models.",
        "",
        f"| | {' | '.join(arms)} |",
        "|---|" + "---|" * len(arms),
    ]
    for name in ROWS:
        cells = [_difference(results["arms"][arm]["to_grpo"][name]) for arm in arms]
        lines.append(f"| {_NAMES.get(name, name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scores_table(results: dict[str, Any]) -> str:
    columns = {"base": results["base"]["scores"]} | {arm: found["scores"] for arm, found in results["arms"].items()}
    lines = ["Accuracy, mean over seeds:", "", f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name in ROWS:
        cells = [_percent(scores.get(name)) for scores in columns.values()]
        lines.append(f"| {_NAMES.get(name, name)} | {' | '.join(cells)} |")
    cells = [_percent(scores.get("option_mass")) for scores in columns.values()]
    lines.append(f"| probability on the labels | {' | '.join(cells)} |")
    cells = [_number(scores.get("position_bias"), "+.2f") for scores in columns.values()]
    lines.append(f"| position bias | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table(results: dict[str, Any]) -> str:
    """Cost per arm; da_sft's steps to the mark are those after its supervised stage, and the table says so."""
    lines = [
        f"| arm | steps to {MARK:.0%} selection, by seed | seconds a step | all steps, s | whole cell, s | tokens |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for arm, found in results["arms"].items():
        cost = found["cost"]
        whole = cost["sft_seconds"] + cost["trainer_seconds"] + cost["evaluation_seconds"]
        marks = ", ".join("never" if step is None else str(step) for step in found["steps_to_mark"].values())
        lines.append(
            f"| {arm} | {marks} | {cost['step_seconds'] / cost['steps']:.2f} | {cost['step_seconds']:.0f} | "
            f"{whole:.0f} | {cost['tokens']:,.0f} |"
        )
    if "da_sft" in results["arms"]:
        lines += ["", "da_sft's steps are counted after its supervised stage of as many steps."]
    return "\n".join(lines)


def paper_table(results: dict[str, Any]) -> str:
    """What the paper reports, what came out, and whether the two agree as far as the interval can tell."""
    lines = ["| arm | paper | here, untrained tasks | agree? |", "|---|---|---|---|"]
    for arm, paper in PAPER.items():
        found = results["arms"].get(arm, {}).get("to_grpo")
        if not found:
            lines.append(f"| {arm} | {paper} | not run | |")
            continue
        lines.append(f"| {arm} | {paper} | {_difference(found[OTHERS_MEAN])} | {agreement(arm, found[OTHERS_MEAN])} |")
    return "\n".join(lines)


def agreement(arm: str, found: dict[str, Any]) -> str:
    """Whether a difference on untrained tasks has the paper's sign, as far as its interval tells."""
    if found["low"] is None:
        return "one seed: cannot be told"
    sign = 1 if found["low"] > 0 else -1 if found["high"] < 0 else 0
    if sign == 0:
        return "no difference found, as in the paper" if _SIGN[arm] == 0 else "not found: the interval holds 0"
    return "yes" if sign == _SIGN[arm] else "**no**"


def gemma_text(gemma: dict[str, Any] | None) -> str:
    if gemma is None:
        return (
            "**Gemma 3 270M** was not probed: its packages were not given (`--gemma PACKAGES`, see "
            "`bench/gemma_checkpoint.py`)."
        )
    numbers = gemma["numbers"]
    return (
        f"**Gemma 3 270M** (4-bit weights, not trained), {numbers['pairs']} {gemma['pairs_of']}, both orders: "
        f"{numbers['accuracy']:.1%} of the selections right (95 %: {numbers['low']:.1%} to {numbers['high']:.1%}), "
        f"position bias {numbers['position_bias']:+.2f}, where +1 is always the first option."
    )


def start_text(results: dict[str, Any]) -> str:
    """What the base knew of selecting before any arm started."""
    habit = results["plan"]["base"]["first_habit"]
    if habit is None:
        return "The base was never asked to select."
    return f"The base was taught to reply to a selection with a label, the first one with probability {habit:g}."


def made_text(results: dict[str, Any]) -> str:
    plan, made = results["plan"], results["made_with"]
    step, training = plan["step"], plan["training"]
    versions = ", ".join(f"{name} {version}" for name, version in made.items())
    arms = "; ".join(f"{arm}: {MEANING[arm]}" for arm in results["arms"])
    return (
        f"{start_text(results)} Plan {plan['name']}, seeds {', '.join(map(str, plan['seeds']))}: "
        f"{training['steps']} steps of {step['items']} items ({step['pairs']} of them pairs where an arm has pairs), "
        f"{step['rollouts']} rollouts, "
        f"{step['updates']} update a step, learning rate {training['learning_rate']:g}, lambda {training['coef']:g}; "
        f"{plan['evaluation']['items']} items a task and {plan['evaluation']['pairs']} pairs a seed are asked at the "
        f"end. {arms}. Made with {versions}."
    )


def _difference(found: dict[str, Any]) -> str:
    whole = "one seed" if found["low"] is None else f"{found['low'] * 100:+.1f} to {found['high'] * 100:+.1f}"
    return f"{found['mean'] * 100:+.1f}: {whole} ({found['item_low'] * 100:+.1f} to {found['item_high'] * 100:+.1f})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)
