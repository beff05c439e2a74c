"""Numbers for the page's drawings: histograms and bars as plain coordinates, drawn by the template as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

WIDTH, HEIGHT = 520, 150


def histogram(name: str, values: Iterable[float], bins: int = 32) -> dict[str, Any]:
    """A histogram on a linear axis, or a logarithmic one if the values span more than two powers of ten.

    Returns:
        What the template draws: bars with the text that shows when one points at them, ticks of the axis as (x, text),
        and a sentence about the numbers.
    """
    drawing = {"name": name, "bars": [], "ticks": [], "sentence": "no values", "width": WIDTH, "height": HEIGHT}
    given = np.sort(np.fromiter(values, float))
    numbers = given[np.isfinite(given)]
    if not len(numbers):
        return drawing
    low, high = float(numbers[0]), float(numbers[-1])
    logarithmic = low > 0 and high / low > 100
    if logarithmic:
        edges = np.geomspace(low, high, bins + 1)
    elif high - low < bins and (numbers == np.floor(numbers)).all():
        # A bar for every whole number: others would stand for none or for two.
        edges = np.arange(low, high + 2)
    else:
        edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts, _ = np.histogram(numbers, edges)
    width = WIDTH / len(counts)
    for index in np.flatnonzero(counts):
        tall = max(2.0, HEIGHT * counts[index] / counts.max())
        hint = f"from {short(edges[index])} to {short(edges[index + 1])}: {counts[index]:,}"
        sizes = {"x": index * width, "y": HEIGHT - tall, "width": width - 1, "height": tall}
        drawing["bars"].append({key: round(float(value), 2) for key, value in sizes.items()} | {"hint": hint})
    places = np.linspace(0, len(counts), 5)[: 5 if len(counts) > 1 else 1]
    marks = np.interp(places, np.arange(len(edges)), edges)
    drawing["ticks"] = [(float(place * width), short(mark)) for place, mark in zip(places, marks, strict=True)]
    tenth, middle, nine = (short(numbers[len(numbers) * tenths // 10]) for tenths in (1, 5, 9))
    sentence = f"{len(numbers):,} values; median {middle}, 80 % between {tenth} and {nine}"
    sentence += ", logarithmic axis" if logarithmic else ""
    sentence += f"; {len(given) - len(numbers):,} not finite" if len(given) > len(numbers) else ""
    return drawing | {"sentence": sentence}


def short(value: float) -> str:
    """A number in few characters."""
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 0.01):
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def shares(counts: Sequence[int], total: int) -> list[float]:
    """Widths in percent; whatever is not zero can be seen."""
    return [0.0 if not count else max(0.4, 100 * count / max(total, 1)) for count in counts]
