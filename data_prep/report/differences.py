"""Two texts side by side: which lines differ, where within them, and what equal parts are folded away; of texts that
have little in common, which lines are in both.

Time is bounded, as difflib's own pages are not: at most MAX_LINES lines of each text are compared, cut to MAX_LINE
characters, and words only within the rows that are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, NamedTuple

from data_prep.report.text import MASK, line_breaks, shortened, visible

MAX_LINES = 800
MAX_LINE = 600
MAX_ROWS = 240
# Below this share of equal lines two texts of more than a few lines are not shown as changes of one another.
_RELATED, _FEW = 0.4, 12
# Words are compared in lines of at most so many.
_MAX_WORDS = 80
_AROUND = 3
# A mask is one word, so that it is never marked in part.
_WORDS = re.compile(MASK.pattern + r"|\w+|\s+|[^\w\s]")

# A piece of a line, and whether it differs.
Piece = tuple[str, bool]


class Row(NamedTuple):
    """Pieces and numbers (from 1) of two lines, None where a side has none; or ``folded`` equal lines, not shown.

    ``equal`` says of either line that the other text has it too.
    """

    equal: tuple[bool, bool]
    left: list[Piece] | None = None
    right: list[Piece] | None = None
    numbers: tuple[int | None, int | None] = (None, None)
    folded: int = 0


def side_by_side(left: str, right: str) -> dict[str, Any]:
    """Compare two texts by lines, and alike lines by words.

    Returns:
        ``rows`` to show and how many more are ``hidden``; how many lines of each text were ``compared`` and how many of
        them are ``equal``; ``notes`` about what is not shown.
    """
    both, notes = [line_breaks(text).split("\n") for text in (left, right)], []
    # Cut before anything else looks at them: a line may be a megabyte long.
    one, other = ([visible(shortened(line, MAX_LINE)) for line in lines[:MAX_LINES]] for lines in both)
    if max(map(len, both)) > MAX_LINES:
        notes.append(f"Only the first {MAX_LINES:,} lines of each side are compared.")
    if any(len(line) > MAX_LINE for lines in both for line in lines[:MAX_LINES]):
        notes.append(f"Lines of more than {MAX_LINE} characters are shortened.")
    matcher = SequenceMatcher(None, one, other)
    equal = sum(block.size for block in matcher.get_matching_blocks())
    least = min(len(one), len(other))
    if least <= _FEW or equal >= _RELATED * least:
        rows = list(_rows(matcher, one, other))
        shown = [row if all(row.equal) else _marked(row) for row in rows[:MAX_ROWS]]
    else:
        notes.append("They have little in common: what stands side by side does not belong together.")
        rows = shown = list(_beside(one, other))
    return {
        "rows": shown[:MAX_ROWS],
        "hidden": max(0, len(rows) - MAX_ROWS),
        "compared": (len(one), len(other)),
        "equal": equal,
        "notes": notes,
    }


def _beside(one: list[str], other: list[str]) -> Iterator[Row]:
    """The lines of either text in its own order, and whether the other has them anywhere."""
    both = set(one) & set(other)
    for number, sides in enumerate(zip_longest(one, other), 1):
        pieces = [None if line is None else [(line, False)] for line in sides]
        numbers = tuple(None if line is None else number for line in sides)
        yield Row(tuple(line in both for line in sides), *pieces, numbers)


def _rows(matcher: SequenceMatcher, one: list[str], other: list[str]) -> Iterator[Row]:
    """Changed lines opposite to each other with a few equal ones around."""
    done = 0
    for group in matcher.get_grouped_opcodes(_AROUND):
        if group[0][1] > done:
            yield Row((True, True), folded=group[0][1] - done)
        for tag, i1, i2, j1, j2 in group:
            sides = zip_longest(enumerate(one[i1:i2], i1 + 1), enumerate(other[j1:j2], j1 + 1), fillvalue=(None, None))
            for (left_number, left), (right_number, right) in sides:
                pieces = [None if line is None else [(line, False)] for line in (left, right)]
                yield Row((tag == "equal",) * 2, *pieces, (left_number, right_number))
        done = group[-1][2]
    if len(one) > done:
        yield Row((True, True), folded=len(one) - done)


def _marked(row: Row) -> Row:
    """The row with the words told that differ; nothing is marked in lines that are not alike."""
    a, b = (_WORDS.findall(side[0][0]) if side else [] for side in (row.left, row.right))
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if not a or not b or max(len(a), len(b)) > _MAX_WORDS or matcher.ratio() < 0.4:
        return row
    parts = matcher.get_opcodes()
    left = [("".join(a[i1:i2]), tag != "equal") for tag, i1, i2, _, _ in parts if i1 < i2]
    right = [("".join(b[j1:j2]), tag != "equal") for tag, _, _, j1, j2 in parts if j1 < j2]
    return row._replace(left=left, right=right)
