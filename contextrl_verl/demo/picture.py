"""The demonstration's picture: loss, selection accuracy and ordinary reward over steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

History = list[tuple[int, dict[str, Any]]]
HELD_OUT = "val-core/contextrl/selection/acc/mean@1"


def series(history: History, key: str) -> tuple[list[int], list[float]]:
    """Steps and values at which a metric was logged."""
    points = [(step, float(metrics[key])) for step, metrics in history if key in metrics]
    return [step for step, _ in points], [value for _, value in points]


def draw(path: Path, learned: History, real: History | None, title: str, ordinary_share: float) -> None:
    """Write the PNG: one row of panels for act 1, one more panel when act 2 ran.

    ``ordinary_share`` is the share of a batch's rows that are not pairs: verl's mean reward counts pairs as 0.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = 3 if real else 2
    figure, axes = plt.subplots(1, panels, figsize=(4.8 * panels, 4.2), layout="constrained")
    axes[0].plot(*series(learned, "actor/contextrl/loss"), color="tab:blue")
    guess = {"color": "0.6", "linestyle": ":", "label": "guessing"}
    axes[0].axhline(0.693, **guess)
    axes[0].set(title="Act 1: context-awareness loss", xlabel="step", ylim=(0, None))
    axes[0].legend(frameon=False)

    axes[1].plot(*series(learned, "actor/contextrl/accuracy"), color="tab:blue", alpha=0.45, label="training pairs")
    axes[1].plot(
        *series(learned, "actor/contextrl/option_mass"), color="0.55", linestyle="--", label="probability on the labels"
    )
    axes[1].plot(*series(learned, HELD_OUT), "o-", color="tab:red", label="held-out pairs, both orders")
    steps, scores = series(learned, "critic/score/mean")
    rewards = [score / ordinary_share for score in scores]
    axes[1].plot(steps, rewards, color="tab:green", alpha=0.6, label="reward of the ordinary task")
    axes[1].axhline(0.5, **guess)
    axes[1].set(title="Act 1: selection accuracy", xlabel="step", ylim=(0, 1.03))
    axes[1].legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)

    if real:
        axes[2].plot(*series(real, "actor/contextrl/loss"), "o-", markersize=3, color="tab:purple")
        axes[2].axhline(0.693, **guess)
        axes[2].legend(frameon=False)
        axes[2].set(title="Act 2: loss on real agent runs", xlabel="step")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)
