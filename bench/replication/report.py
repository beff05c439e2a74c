"""The report in Markdown and as a picture, from ``results.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.common import picture, table
from bench.replication.material import MAIN
from bench.replication.results import BASELINE, MARK, OTHERS_MEAN, ROWS, SELECTION, told_steps
from contextrl_verl.arms import MEANING

_NAMES = {MAIN: f"{MAIN} (trained)", OTHERS_MEAN: "**five untrained tasks**", SELECTION: "held-out selection"}
# Mean difference to grpo over the paper's benchmarks (Table 4 and the abstract; Table 3 for da_sft's agents), and the
# sign it has on untrained tasks: above, about the same, below.
PAPER = {
    "contextrl": (1, "better than grpo: +2.2 points over five agentic, +1.8 over twelve visual benchmarks"),
    "da_rl": (0, "about grpo (+0.4 visual, between -0.6 and +0.3 agentic); selection accuracy stays near the base"),
    "da_sft": (
        -1,
        "selection accuracy 85 to 93 %, but agents collapse (28.0 to 6.4 and 6.2 to 0.0 on SWE-bench Verified)",
    ),
    "da_qca": (0, "little or no gain over grpo"),
}
COLOURS = {
    "grpo": "0.45", "contextrl": "tab:red", "da_rl": "tab:blue", "da_qca": "tab:green", "da_sft": "tab:orange",
}  # fmt: skip


def markdown(results: dict[str, Any], shown: str, other: dict[str, Any] | None = None) -> str:
    """The figures of a run: claim, differences, scores, cost, comparison with the paper, Gemma, how it was made.

    Args:
        shown: path of the picture.
        other: results of a run from another start, told in short: it belongs next to the first, because the start
            decides how da_rl does.
    """
    parts = [
        f"**Selection.** {results['claim']['told']}",
        differences_table(results),
        scores_table(results),
        f"![Learning curves of all arms]({shown})",
        "**Cost**, means over seeds; seconds are those of the machine that ran it.",
        cost_table(results),
        "**Next to the paper**",
        paper_table(results),
        gemma_text(results["gemma"]),
        made_text(results),
    ]
    if results["missing"]:
        parts.insert(0, f"**Not complete.** Cells that are missing: {', '.join(results['missing'])}.")
    if other:
        plan = other["plan"]
        parts += [
            "## From another start",
            f"{start_text(other)} Seeds {_list(plan['seeds'])}, {plan['training']['steps']} steps, arms "
            f"{_list(other['arms'])}; all else as above.",
            other["claim"]["told"],
            scores_table(other),
            cost_table(other),
        ]
    return "\n\n".join(parts) + "\n"


def differences_table(results: dict[str, Any]) -> str:
    arms = {arm: found["to_grpo"] for arm, found in results["arms"].items() if arm != BASELINE and found["to_grpo"]}
    if not arms:
        return "No arm ran on a seed that grpo has, so there is no difference to tell."
    rows = [[_NAMES.get(name, name), *(_difference(found[name]) for found in arms.values())] for name in ROWS]
    return (
        "Difference to grpo in points of accuracy, with its 95 % interval over seeds and items; in brackets the "
        f"interval over items alone, for these very models.\n\n{table(['', *arms], rows)}"
    )


def scores_table(results: dict[str, Any]) -> str:
    columns = {"base": results["base"]["scores"]} | {arm: found["scores"] for arm, found in results["arms"].items()}
    formats = {name: (_NAMES.get(name, name), ".1%") for name in ROWS}
    formats |= {"option_mass": ("probability on the labels", ".1%"), "position_bias": ("position bias", "+.2f")}
    rows = [
        [told, *(format(scores[name], how) if name in scores else "" for scores in columns.values())]
        for name, (told, how) in formats.items()
    ]
    return f"Accuracy, mean over seeds:\n\n{table(['', *columns], rows, 'lr')}"


def cost_table(results: dict[str, Any]) -> str:
    """Cost per arm; da_sft's steps to the mark are those after its supervised stage, and the table says so."""
    head = [
        "arm",
        f"steps to {MARK:.0%} selection, by seed",
        "seconds a step",
        "all steps, s",
        "whole cell, s",
        "tokens",
    ]
    rows = []
    for arm, found in results["arms"].items():
        cost = found["cost"]
        whole = cost["sft_seconds"] + cost["trainer_seconds"] + cost["evaluation_seconds"]
        marks, step = told_steps(found["steps_to_mark"].values()), cost["step_seconds"] / cost["steps"]
        numbers = [f"{step:.2f}", f"{cost['step_seconds']:.0f}", f"{whole:.0f}", f"{cost['tokens']:,.0f}"]
        rows.append([arm, marks, *numbers])
    told = "\n\nda_sft's steps are counted after its supervised stage of as many steps."
    return table(head, rows, "llr") + (told if "da_sft" in results["arms"] else "")


def paper_table(results: dict[str, Any]) -> str:
    """What the paper reports, what came out, and whether the two agree as far as the interval can tell."""
    rows = []
    for arm, (_, paper) in PAPER.items():
        found = results["arms"].get(arm, {}).get("to_grpo", {}).get(OTHERS_MEAN)
        rows.append([arm, paper, *((_difference(found), agreement(arm, found)) if found else ("not run", ""))])
    return table(["arm", "paper", "here, untrained tasks", "agree?"], rows)


def agreement(arm: str, found: dict[str, Any]) -> str:
    """Whether a difference on untrained tasks has the paper's sign, as far as its interval tells."""
    if found["low"] is None:
        return "one seed: cannot be told"
    sign, papers = (1 if found["low"] > 0 else -1 if found["high"] < 0 else 0), PAPER[arm][0]
    if sign == 0:
        return "no difference found, as in the paper" if papers == 0 else "not found: the interval holds 0"
    return "yes" if sign == papers else "**no**"


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
    plan = results["plan"]
    step, training = plan["step"], plan["training"]
    return (
        f"{start_text(results)} Plan {plan['name']}, seeds {_list(plan['seeds'])}: "
        f"{training['steps']} steps of {step['items']} items ({step['pairs']} of them pairs where an arm has pairs), "
        f"{step['rollouts']} rollouts, "
        f"{step['updates']} update a step, learning rate {training['learning_rate']:g}, lambda {training['coef']:g}; "
        f"{plan['evaluation']['items']} items a task and {plan['evaluation']['pairs']} pairs a seed are asked at the "
        f"end. {'; '.join(f'{arm}: {MEANING[arm]}' for arm in results['arms'])}. "
        f"Made with {', '.join(f'{name} {version}' for name, version in results['made_with'].items())}."
    )


def _list(values: Any) -> str:
    return ", ".join(map(str, values))


def _difference(found: dict[str, Any]) -> str:
    whole = "one seed" if found["low"] is None else f"{found['low'] * 100:+.1f} to {found['high'] * 100:+.1f}"
    return f"{found['mean'] * 100:+.1f}: {whole} ({found['item_low'] * 100:+.1f} to {found['item_high'] * 100:+.1f})"


def draw(results: dict[str, Any], path: Path) -> None:
    """Learning curves of all arms (thin lines are seeds, a thick one is their mean), and differences to GRPO."""
    plan = results["plan"]
    title = (
        f"contextrl-verl {results['made_with']['contextrl-verl']}, plan {plan['name']}, seeds {_list(plan['seeds'])}"
    )
    with picture(path, 3, size=(14, 4.2), title=title) as (_, axes):
        for axis, name, told in (
            (axes[0], "held_out_selection", "Selection accuracy, held-out pairs, both orders"),
            (axes[1], "held_out_main_task", "Main task, held-out accuracy"),
        ):
            for arm, found in results["arms"].items():
                curves = [dict(map(tuple, curves[name])) for curves in found["curves"].values()]
                for curve in curves:
                    axis.plot(list(curve), list(curve.values()), color=COLOURS[arm], alpha=0.3, linewidth=0.8)
                steps = sorted(set.intersection(*map(set, curves)))
                means = [sum(curve[step] for curve in curves) / len(curves) for step in steps]
                axis.plot(steps, means, color=COLOURS[arm], linewidth=2, label=arm)
            axis.set(title=told, xlabel="step", ylim=(0, 1.03))
        axes[0].axhline(MARK, color="0.6", linestyle="--", linewidth=0.8)
        axes[0].axhline(0.5, color="0.6", linestyle=":", linewidth=0.8)
        axes[0].legend(frameon=False, fontsize=8, loc="lower right", ncols=2)
        shown = [arm for arm, found in results["arms"].items() if arm != BASELINE and found["to_grpo"]]
        for at, arm in enumerate(shown):
            found, colour = results["arms"][arm]["to_grpo"][OTHERS_MEAN], COLOURS[arm]
            axes[2].plot(found["mean"], at, "o", color=colour)
            if found["low"] is not None:
                axes[2].plot([found["low"], found["high"]], [at, at], color=colour, linewidth=1)
            axes[2].plot([found["item_low"], found["item_high"]], [at, at], color=colour, linewidth=4, alpha=0.5)
        axes[2].axvline(0, color="0.6", linewidth=0.8)
        axes[2].set_yticks(range(len(shown)), shown)
        axes[2].invert_yaxis()
        axes[2].set(
            title="Five untrained tasks: difference to grpo", xlabel="accuracy (thin: seeds and items; thick: items)"
        )
