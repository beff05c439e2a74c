"""Learning curves of all arms: held-out selection, the main task's held-out accuracy, and the difference to GRPO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.replication.results import BASELINE, OTHERS_MEAN
from bench.replication.statistics import MARK

COLOURS = {
    "grpo": "0.45", "contextrl": "tab:red", "da_rl": "tab:blue", "da_qca": "tab:green", "da_sft": "tab:orange",
}  # fmt: skip


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the PNG; thin lines are seeds, a thick one is their mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for arm, found in results["arms"].items():
        _curves(axes[0], found, "held_out_selection", arm)
        _curves(axes[1], found, "held_out_main_task", arm)
    axes[0].axhline(MARK, color="0.6", linestyle="--", linewidth=0.8)
    axes[0].axhline(0.5, color="0.6", linestyle=":", linewidth=0.8)
    axes[0].set(title="Selection accuracy, held-out pairs, both orders", xlabel="step", ylim=(0, 1.03))
    axes[1].set(title="Main task, held-out accuracy", xlabel="step", ylim=(0, 1.03))
    axes[0].legend(frameon=False, fontsize=8, loc="lower right", ncols=2)
    _differences(axes[2], results["arms"])
    figure.suptitle(
        f"contextrl-verl {results['made_with']['contextrl-verl']}, plan {results['plan']['name']}, "
        f"seeds {', '.join(map(str, results['plan']['seeds']))}",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _curves(axis: Any, found: dict[str, Any], name: str, arm: str) -> None:
    curves = [dict(map(tuple, curves[name])) for curves in found["curves"].values()]
    for curve in curves:
        axis.plot(list(curve), list(curve.values()), color=COLOURS[arm], alpha=0.3, linewidth=0.8)
    steps = sorted(set.intersection(*map(set, curves)))
    means = [sum(curve[step] for curve in curves) / len(curves) for step in steps]
    axis.plot(steps, means, color=COLOURS[arm], linewidth=2, label=arm)


def _differences(axis: Any, arms: dict[str, Any]) -> None:
    shown = [arm for arm in arms if arm != BASELINE and arms[arm]["to_grpo"]]
    for at, arm in enumerate(shown):
        found = arms[arm]["to_grpo"][OTHERS_MEAN]
        axis.plot(found["mean"], at, "o", color=COLOURS[arm])
        if found["low"] is not None:
            axis.plot([found["low"], found["high"]], [at, at], color=COLOURS[arm], linewidth=1)
        axis.plot([found["item_low"], found["item_high"]], [at, at], color=COLOURS[arm], linewidth=4, alpha=0.5)
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.set_yticks(range(len(shown)), shown)
    axis.invert_yaxis()
    axis.set(title="Five untrained tasks: difference to grpo", xlabel="accuracy (thin: seeds and items; thick: items)")
