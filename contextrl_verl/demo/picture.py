"""Pictures of what was logged over steps: the demonstration's own, and the frame that benchmarks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contextrl_verl.pairs.whole_file import whole_file

History = list[tuple[int, dict[str, Any]]]
HELD_OUT = "val-core/contextrl/selection/acc/mean@1"


def series(history: History, key: str) -> tuple[list[int], list[float]]:
    """Steps and values at which a metric was logged."""
    points = [(step, float(metrics[key])) for step, metrics in history if key in metrics]
    return [step for step, _ in points], [value for _, value in points]


@contextmanager
def picture(
    path: Path, columns: int, rows: int = 1, *, size: tuple[float, float], title: str = "", **more: Any
) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, written as PNG when the block ends; ``more`` is for ``Figure.subplots``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield figure, figure.subplots(rows, columns, **more)
    figure.suptitle(title, fontsize=10)
    with whole_file(path) as scratch:
        figure.savefig(scratch, dpi=130, format="png")


def draw(path: Path, learned: History, real: History, title: str, ordinary_share: float) -> None:
    """The demonstration's PNG: two panels of act 1, one of act 2.

    verl's mean reward counts pairs as 0, so it is divided by the ``ordinary_share`` of a batch's rows.
    """
    lines = (
        ("actor/contextrl/accuracy", "training pairs", {"color": "tab:blue", "alpha": 0.45}),
        ("actor/contextrl/option_mass", "probability on the labels", {"color": "0.55", "linestyle": "--"}),
        (HELD_OUT, "held-out pairs, both orders", {"color": "tab:red", "marker": "o"}),
        ("critic/score/mean", "reward of the ordinary task", {"color": "tab:green", "alpha": 0.6}),
    )
    with picture(path, 3, size=(14.4, 4.2), title=title) as (_, axes):
        axes[0].plot(*series(learned, "actor/contextrl/loss"), color="tab:blue")
        axes[0].set(title="Act 1: context-awareness loss", ylim=(0, None))
        for key, label, style in lines:
            steps, values = series(learned, key)
            whole = ordinary_share if key.startswith("critic") else 1
            axes[1].plot(steps, [value / whole for value in values], label=label, **style)
        axes[1].set(title="Act 1: selection accuracy", ylim=(0, 1.03))
        axes[2].plot(*series(real, "actor/contextrl/loss"), "o-", markersize=3, color="tab:purple")
        axes[2].set(title="Act 2: loss on real agent runs")
        for axis, guess in zip(axes, (0.693, 0.5, 0.693), strict=True):
            axis.axhline(guess, color="0.6", linestyle=":", label="guessing")
            axis.set_xlabel("step")
            below = {"fontsize": 8, "loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
            axis.legend(frameon=False, **(below if axis is axes[1] else {}))
