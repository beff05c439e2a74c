"""Two texts side by side: which lines differ, where within them, and what equal parts are folded away.

Time is bounded, as difflib's own pages are not: at most MAX_LINES lines of each text are compared, cut to MAX_LINE
characters, and differences within lines are looked for in a limited number of lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, Literal

from data_prep.report.text import MASK, shortened, visible

MAX_LINES = 800
MAX_LINE = 600
# Words are compared in lines of at most so many, until so many pairs of words were looked at.
_MAX_WORDS = 80
_MAX_CELLS = 400_000
_AROUND = 3
# A mask is one word, so that it is never marked in part.
_WORDS = re.compile(MASK.pattern + r"|\w+|\s+|[^\w\s]")

# A piece of a line, and whether it differs.
Piece = tuple[str, bool]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        kind: ``fold`` stands for ``folded`` equal lines.
        left, right: pieces of the lines; None where a side has none.
        numbers: line numbers, from 1; None where a side has none.
    """

    kind: Literal["equal", "changed", "fold"]
    left: list[Piece] | None = None
    right: list[Piece] | None = None
    numbers: tuple[int | None, int | None] = (None, None)
    folded: int = 0


def side_by_side(left: str, right: str, max_rows: int = 240) -> dict[str, Any]:
    """Compare two texts by lines, and alike lines by words.

    Returns:
        ``rows`` to show and how many more are ``hidden``; how many lines of each text were ``compared`` and how many of
        them are ``equal``; ``notes`` about what is not shown.
    """
    both = [text.split("\n") for text in (left, right)]
    # Cut before anything else looks at them: a line may be a megabyte long.
    one, other = ([visible(shortened(line, MAX_LINE)) for line in lines[:MAX_LINES]] for lines in both)
    notes = []
    if max(map(len, both)) > MAX_LINES:
        notes.append(f"Only the first {MAX_LINES:,} lines of each side are compared.")
    if any(len(line) > MAX_LINE for lines in both for line in lines[:MAX_LINES]):
        notes.append(f"Lines of more than {MAX_LINE} characters are shortened.")
    matcher = SequenceMatcher(None, one, other)
    rows = list(_rows(matcher, one, other))
    return {
        "rows": rows[:max_rows],
        "hidden": max(0, len(rows) - max_rows),
        "compared": (len(one), len(other)),
        "equal": sum(block.size for block in matcher.get_matching_blocks()),
        "notes": notes,
    }


def _rows(matcher: SequenceMatcher, one: list[str], other: list[str]) -> Iterator[Row]:
    """Changed lines opposite to each other with a few equal ones around; words are compared while the budget lasts."""
    budget = [_MAX_CELLS]
    done = 0
    for group in matcher.get_grouped_opcodes(_AROUND):
        if group[0][1] > done:
            yield Row("fold", folded=group[0][1] - done)
        for tag, i1, i2, j1, j2 in group:
            for offset, (left, right) in enumerate(zip_longest(one[i1:i2], other[j1:j2])):
                numbers = (None if left is None else i1 + offset + 1, None if right is None else j1 + offset + 1)
                if tag == "replace" and left is not None and right is not None:
                    pieces = _words(left, right, budget)
                else:
                    pieces = (None if line is None else [(line, False)] for line in (left, right))
                yield Row("equal" if tag == "equal" else "changed", *pieces, numbers)
        done = group[-1][2]
    if len(one) > done:
        yield Row("fold", folded=len(one) - done)


def _words(left: str, right: str, budget: list[int]) -> tuple[list[Piece], list[Piece]]:
    # Nothing is marked in lines that are not alike: their colour says enough.
    whole = [(left, False)], [(right, False)]
    a, b = _WORDS.findall(left), _WORDS.findall(right)
    if budget[0] <= 0 or max(len(a), len(b)) > _MAX_WORDS:
        return whole
    budget[0] -= len(a) * len(b)
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if matcher.ratio() < 0.4:
        return whole
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        for side, text in zip(pieces, ("".join(a[i1:i2]), "".join(b[j1:j2])), strict=True):
            if text:
                side.append((text, tag != "equal"))
    return pieces
