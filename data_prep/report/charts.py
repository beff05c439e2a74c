"""Numbers for the page's drawings: histograms and bars as plain coordinates, drawn by the template as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 520, 150


@dataclass(frozen=True)
class Bar:
    """A rectangle in a drawing, with the text that shows when one points at it."""

    x: float
    y: float
    width: float
    height: float
    hint: str


@dataclass(frozen=True)
class Drawing:
    """A histogram ready to draw: bars, ticks of the axis as (x, text), and a sentence about the numbers."""

    name: str
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    sentence: str
    width: int = WIDTH
    height: int = HEIGHT


def histogram(name: str, values: Iterable[float], bins: int = 32) -> Drawing:
    """A histogram on a linear axis, or a logarithmic one if the values span more than two powers of ten."""
    numbers = sorted(float(value) for value in values)
    left_out = sum(not math.isfinite(value) for value in numbers)
    numbers = [value for value in numbers if math.isfinite(value)]
    if not numbers:
        return Drawing(name, [], [], "no values")
    low, high = numbers[0], numbers[-1]
    logarithmic = low > 0 and high / low > 100
    scale = math.log10 if logarithmic else float
    if not logarithmic and high - low < bins and all(value == int(value) for value in numbers):
        # A bar for every whole number: others would stand for none or for two.
        bins = int(high - low) + 1
        high += 1
    start, span = scale(low), (scale(high) - scale(low)) or 1.0
    counts = [0] * bins
    for value in numbers:
        counts[min(bins - 1, int((scale(value) - start) / span * bins))] += 1

    def edge(index: float) -> float:
        place = start + span * index / bins
        return 10**place if logarithmic else place

    width = WIDTH / bins
    bars = []
    for index, count in enumerate(counts):
        if count:
            tall = max(2.0, HEIGHT * count / max(counts))
            hint = f"from {short(edge(index))} to {short(edge(index + 1))}: {count:,}"
            bars.append(
                Bar(round(index * width, 2), round(HEIGHT - tall, 2), round(width - 1, 2), round(tall, 2), hint)
            )
    ticks = [(WIDTH * step / 4, short(edge(bins * step / 4))) for step in (range(5) if bins > 1 else (0,))]
    middle = numbers[len(numbers) // 2]
    tenth, nine = numbers[len(numbers) // 10], numbers[min(len(numbers) - 1, len(numbers) * 9 // 10)]
    sentence = f"{len(numbers):,} values; median {short(middle)}, 80 % between {short(tenth)} and {short(nine)}"
    sentence += ", logarithmic axis" if logarithmic else ""
    sentence += f"; {left_out:,} not finite" if left_out else ""
    return Drawing(name, bars, ticks, sentence)


def short(value: float) -> str:
    """A number in few characters."""
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 0.01):
        return f"{value:.3g}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def shares(counts: Sequence[int], total: int) -> list[float]:
    """Widths in percent; whatever is not zero can be seen."""
    return [0.0 if not count else max(0.4, 100 * count / max(total, 1)) for count in counts]
