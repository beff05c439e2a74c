"""The picture of a probe: accuracy by group, margins, and which option the model likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep.probe.run import Probe

# More rows cannot be read.
_MOST_ROWS = 24


def draw(path: Path, found: Probe, title: str) -> None:
    """Write the PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = _rows(found)
    height = max(3.6, 0.34 * len(rows) + 1.2)
    figure, axes = plt.subplots(
        1, 3, figsize=(14, height), layout="constrained", gridspec_kw={"width_ratios": [2, 1.3, 1]}
    )
    _accuracy(axes[0], rows, found.overall["chance"])
    _margins(axes[1], found)
    _positions(axes[2], found)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _rows(found: Probe) -> list[tuple[str, dict[str, Any], str]]:
    several = [group for group in found.groups if sum(other["by"] == group["by"] for other in found.groups) > 1]
    rows = [("all", found.overall, "tab:blue")]
    rows += [(f"{group['by']} {group['name']}", group, "tab:cyan") for group in several]
    baselines = [(one["name"], one, "0.55") for one in found.baselines if one["name"] != "chance"]
    return rows[: _MOST_ROWS - len(baselines)] + baselines


def _accuracy(axis: Any, rows: list[tuple[str, dict[str, Any], str]], chance: float) -> None:
    for place, (_, row, color) in enumerate(rows):
        axis.plot([row["low"], row["high"]], [place, place], color=color, linewidth=2)
        axis.plot(row["accuracy"], place, "o", color=color)
    axis.axvline(chance, color="0.6", linestyle=":")
    names = [f"{name} ({row['pairs']})" for name, row, _ in rows]
    axis.set(title="Selection accuracy, 95 % intervals (pairs)", xlim=(-0.02, 1.02), yticks=range(len(rows)))
    axis.set_yticklabels(names, fontsize=8)
    axis.invert_yaxis()


def _margins(axis: Any, found: Probe) -> None:
    table = found.questions.dropna(subset=["margin"])
    axis.set(title="Margin of the supporting context", xlabel="logits", ylabel="questions")
    if table.empty:
        axis.text(0.5, 0.5, "replies were sampled:\nno logits", ha="center", va="center", transform=axis.transAxes)
        return
    places = sorted(table["right"].unique())
    bins = min(40, max(5, len(table) // 8))
    margins = [table.loc[table["right"] == place, "margin"] for place in places]
    axis.hist(margins, bins=bins, stacked=True, label=[f"option {place + 1}" for place in places])
    axis.axvline(0, color="0.3", linewidth=1)
    # Room for the legend above the bars.
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])
    axis.legend(title="it is shown as", fontsize=8, title_fontsize=8, frameon=False, loc="upper center")


def _positions(axis: Any, found: Probe) -> None:
    table = found.questions
    options = int(table["options"].max())
    shares = [float((table["chosen"] == place).mean()) for place in range(options)]
    none = float((table["chosen"] < 0).mean())
    names = [f"option {place + 1}" for place in range(options)]
    if none:
        names, shares = [*names, "none"], [*shares, none]
    axis.bar(names, shares, color="tab:orange")
    axis.axhline(found.overall["chance"], color="0.6", linestyle=":")
    axis.set(title=f"Chosen; position bias {found.overall['position_bias']:+.2f}", ylim=(0, 1.02))
