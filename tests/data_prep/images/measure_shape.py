"""A second opinion on pictures of flat shapes: what is in them, and what a question's answer is.

Shares nothing with the package: shapes are told by how much of their box they fill, colours by exact levels, questions
by the words in them. Tests re-measure edited pictures with it.
"""

from __future__ import annotations

import numpy as np

LEVELS = {
    (0, 0, 0): "black", (128, 128, 128): "gray", (255, 0, 0): "red", (0, 255, 0): "green", (0, 0, 255): "blue",
    (0, 128, 128): "teal", (165, 42, 42): "brown", (255, 255, 0): "yellow",
}  # fmt: skip


def shapes_in(picture) -> list[tuple[str, str]]:
    """(shape, colour) of every connected area of one of the eight colours, of an RGB picture."""
    levels = np.asarray(picture).tolist()
    found = []
    for area, colour in _areas(levels):
        # Pixels at the edge belong to it when they are nearer to its colour than to the ground's.
        area |= {spot for y, x in area for spot in _around(y, x) if _nearer(levels, spot, colour)}
        height = max(y for y, _ in area) - min(y for y, _ in area) + 1
        width = max(x for _, x in area) - min(x for _, x in area) + 1
        filled = len(area) / (height * width)
        found.append(("triangle" if filled < 0.687 else "circle" if filled < 0.915 else "rectangle", LEVELS[colour]))
    return sorted(found)


def _areas(levels):
    kinds = {
        (y, x): tuple(pixel) for y, row in enumerate(levels) for x, pixel in enumerate(row) if tuple(pixel) in LEVELS
    }
    while kinds:
        start, colour = kinds.popitem()
        area, edge = {start}, [start]
        while edge:
            for near in _around(*edge.pop()):
                if kinds.get(near) == colour:
                    del kinds[near]
                    area.add(near)
                    edge.append(near)
        if len(area) >= 6:  # else a mixture at an edge that happens to be one of the colours
            yield area, colour


def _around(y, x):
    return (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)


def _nearer(levels, spot, colour):
    if not (0 <= spot[0] < len(levels) and 0 <= spot[1] < len(levels[0])):
        return False
    corners = [tuple(levels[y][x]) for y in (0, -1) for x in (0, -1)]
    ground = max(corners, key=corners.count)
    here = levels[spot[0]][spot[1]]
    return sum(abs(a - b) for a, b in zip(here, colour, strict=True)) < sum(
        abs(a - b) for a, b in zip(here, ground, strict=True)
    )


def right_answer(question: str, shapes: list[tuple[str, str]]) -> str | None:
    """The answer by the words of the question; None if it has none for these shapes."""
    words = question.replace("?", "").split()
    colours = [word for word in words if word in LEVELS.values()]
    named = [word for word in words if word in ("circle", "rectangle", "triangle")]
    fitting = [
        (shape, colour)
        for shape, colour in shapes
        if (not colours or colour in colours) and (not named or shape in named)
    ]
    if words[0] in ("is", "does"):
        there = len(fitting) > 0
        return "yes" if there is not ("not" in words or "no" in words) else "no"
    if len(fitting) != 1:
        return None
    return fitting[0][1] if "color" in words else fitting[0][0]
