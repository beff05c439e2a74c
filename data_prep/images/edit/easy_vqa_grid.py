"""Shapes on easy_vqa's grid, cell by cell as its pictures have them, so that a drawn shape is like one of its own.

The source draws at twice the size, then halves with a bilinear filter. What its old drawing library fills is not what a
formula or today's library fills; the circles below were measured in its pictures (each of them follows from those
without any doubt).
"""

from __future__ import annotations

import numpy as np

# Sides in cells (half pixels).
LEAST, MOST = 16, 64
_RADII = """\
8: 4 5 6 7 8 8 8 8 8
9: 4 6 7 8 8 9 9 9 9 9
10: 3 5 7 8 8 9 9 10 10 10 10
11: 3 5 7 8 9 9 10 10 11 11 11 11
12: 3 6 7 8 9 10 11 11 11 12 12 12 12
13: 5 7 8 10 10 11 12 12 13 13 13 13 13 13
14: 5 7 9 10 11 12 12 13 13 14 14 14 14 14 14
15: 4 6 8 9 11 11 12 13 13 14 14 15 15 15 15 15
16: 6 8 9 11 12 13 13 14 15 15 16 16 16 16 16 16 16
17: 6 8 10 11 12 13 14 15 15 16 16 17 17 17 17 17 17 17
18: 6 8 10 11 13 14 14 15 16 16 17 17 18 18 18 18 18 18 18
19: 6 9 10 12 13 14 15 16 16 17 18 18 18 19 19 19 19 19 19 19
20: 4 7 9 11 13 14 15 16 16 17 17 18 18 19 19 19 20 20 20 20 20
21: 6 9 11 12 14 15 16 17 17 18 19 19 20 20 20 21 21 21 21 21 21 21
22: 7 9 11 13 14 15 16 17 18 19 19 20 20 21 21 22 22 22 22 22 22 22 22
23: 6 9 11 13 14 15 17 17 18 19 20 20 21 21 22 22 22 23 23 23 23 23 23 23
24: 7 10 12 13 15 16 17 18 19 20 20 21 22 22 23 23 23 24 24 24 24 24 24 24 24
25: 7 10 12 14 15 16 17 18 19 20 21 22 22 23 23 24 24 24 25 25 25 25 25 25 25 25
26: 7 10 12 14 15 17 18 19 20 21 21 22 23 23 24 24 25 25 25 26 26 26 26 26 26 26 26
27: 5 9 11 13 15 16 17 18 19 20 21 22 23 23 24 24 25 25 26 26 26 26 27 27 27 27 27 27
28: 7 10 12 14 16 17 19 20 21 22 22 23 24 24 25 25 26 26 27 27 27 28 28 28 28 28 28 28 28
29: 5 9 11 14 15 17 18 19 21 21 22 23 24 24 25 26 26 26 27 27 28 28 28 28 29 29 29 29 29 29
30: 7 10 13 15 17 18 19 20 22 22 23 24 25 26 26 27 27 28 28 28 29 29 29 30 30 30 30 30 30 30 30
31: 5 9 12 14 16 17 19 20 21 22 23 24 25 25 26 27 27 28 28 29 29 29 30 30 30 30 31 31 31 31 31 31
32: 6 9 12 15 16 18 19 21 21 23 23 25 25 26 27 27 28 29 29 29 30 30 30 31 31 31 32 32 32 32 32 32 32
"""
# By radius in cells: for the rows from the top to the middle, cells to the left and to the right of the middle one.
_CIRCLES = {
    int(radius): [int(count) for count in rows.split()]
    for radius, rows in (line.split(":") for line in _RADII.splitlines())
}


def cells_of(figure: str, side: int, other: int) -> tuple[int, int]:
    """Columns and rows that a figure takes.

    Args:
        side: in cells, :data:`LEAST` to :data:`MOST`.
        other: the second side, of a rectangle.
    """
    if figure == "circle":
        return side // 2 * 2 + 1, side // 2 * 2 + 1
    if figure == "triangle":
        return side + 1, _tall(side) + 1
    return side + 1, other + 1


def raster(figure: str, columns: int, rows: int) -> np.ndarray | None:
    """Which cells (rows, columns) of its box a figure fills; None if the source has none of that size."""
    if figure == "rectangle":
        return np.ones((rows, columns), dtype=bool)
    if figure == "circle" and columns == rows and columns % 2 and columns // 2 in _CIRCLES:
        half = _CIRCLES[columns // 2]
        reach = np.array(half + half[-2::-1])[:, None]
        return np.abs(np.arange(columns) - columns // 2)[None, :] <= reach
    if figure == "triangle" and rows == _tall(columns - 1) + 1:
        top, down = (columns - 1) // 2, np.arange(rows) / (rows - 1)
        left = np.floor(top - top * down + 0.5)[:, None]
        right = np.ceil(top + (columns - 1 - top) * down - 0.5)[:, None]
        across = np.arange(columns)[None, :]
        return (left <= across) & (across <= right)
    return None


def _tall(side: int) -> int:
    return int(side * 3**0.5 / 2) + 1
