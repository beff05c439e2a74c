"""The figures as a picture: every step of both jobs, the stages, and the released schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.overhead.sizes import ARMS
from bench.overhead.stages import STAGES

_COLOURS = {ARMS[0]: "0.45", ARMS[1]: "tab:blue"}
_LABELS = {ARMS[0]: "without pairs", ARMS[1]: "with pairs"}


def draw(path: Path, found: dict[str, Any]) -> None:
    """Write the PNG; ``found`` as :func:`bench.overhead.results.summarise` returns it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    _steps(axes[0], found)
    _stages(axes[1], found)
    _released(axes[2], found)
    ratio, versions = found["stages"]["step"]["ratio"], found["versions"]
    figure.suptitle(
        f"What {found['sizes']['share']:.0%} pairs cost: step time x {ratio['value']:.3f} "
        f"({ratio['low']:.3f} to {ratio['high']:.3f})   [contextrl-verl {versions['contextrl-verl']}, verl "
        f"{versions['verl']}, {found['machine']['cores']} cores]",
        fontsize=11,
    )
    figure.savefig(path, dpi=130, format="png")
    plt.close(figure)


def _steps(axis: Any, found: dict[str, Any]) -> None:
    for arm in ARMS:
        times = found["seconds"][arm]["step"]
        axis.plot(range(1, len(times) + 1), times, "o-", ms=4, lw=1, color=_COLOURS[arm], label=_LABELS[arm])
    axis.set(xlabel="round (one step of each job)", ylabel="seconds", title="every step", ylim=(0, None))
    axis.legend()


def _stages(axis: Any, found: dict[str, Any]) -> None:
    left = dict.fromkeys(ARMS, 0.0)
    for index, stage in enumerate((*STAGES, "other")):
        widths = [found["stages"][stage][arm] for arm in ARMS]
        axis.barh(
            [_LABELS[arm] for arm in ARMS], widths, left=[left[arm] for arm in ARMS], color=f"C{index}", label=stage
        )
        for arm, width in zip(ARMS, widths, strict=True):
            left[arm] += width
    axis.set(xlabel="seconds (medians)", title="stages of a step", ylim=(-0.6, 2.4))
    axis.legend(ncols=3, fontsize=8, loc="upper center")


def _released(axis: Any, found: dict[str, Any]) -> None:
    lines = found["released"]["lines"][::-1]
    names = [f"{line['name']}\n{line['pairs']} pairs x {line['uses']}" for line in lines]
    bars = axis.barh(range(len(lines)), [line["work"] / 1e6 for line in lines], color="0.6")
    for bar, line in zip(bars, lines, strict=True):
        bar.set_color("tab:orange" if "(" in line["name"] else "tab:blue")
    axis.set_yticks(range(len(lines)), names, fontsize=8)
    axis.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    axis.set(xlabel="million tokens of forward work a step, all GPUs", title="pairs in the paper's settings")
    axis.margins(x=0.12)
