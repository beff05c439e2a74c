"""Two texts side by side: which lines differ, where within them, and what equal parts are folded away.

Time is bounded: at most MAX_LINES lines of each text are compared, cut to MAX_LINE characters, and differences within
lines are looked for in a limited number of lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Literal

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
        kind: ``equal``, ``changed`` (both sides, alike), ``left``, ``right``, or ``fold``.
        left, right: pieces of the lines; None where a side has none.
        numbers: line numbers, from 1; None where a side has none.
        folded: number of equal lines that a fold stands for.
    """

    kind: Literal["equal", "changed", "left", "right", "fold"]
    left: list[Piece] | None = None
    right: list[Piece] | None = None
    numbers: tuple[int | None, int | None] = (None, None)
    folded: int = 0


@dataclass
class SideBySide:
    """Rows and what they do not show.

    Attributes:
        lines: number of lines of each text.
        equal: lines found equal in both, of those compared.
        compared: lines looked at of each text; fewer than ``lines`` for huge ones.
        hidden: rows left out after the last one shown.
    """

    rows: list[Row]
    lines: tuple[int, int]
    compared: tuple[int, int]
    equal: int = 0
    hidden: int = 0
    notes: list[str] = field(default_factory=list)


def side_by_side(left: str, right: str, max_rows: int = 240) -> SideBySide:
    """Compare two texts by lines, and alike lines by words."""
    both = [text.split("\n") for text in (left, right)]
    totals = (len(both[0]), len(both[1]))
    # Cut before anything else looks at them: a line may be a megabyte long.
    one, other = ([visible(shortened(line, MAX_LINE)) for line in lines[:MAX_LINES]] for lines in both)
    result = SideBySide([], totals, (len(one), len(other)))
    if max(totals) > MAX_LINES:
        result.notes.append(f"Only the first {MAX_LINES:,} lines of each side are compared.")
    if any(len(line) > MAX_LINE for lines in both for line in lines[:MAX_LINES]):
        result.notes.append(f"Lines of more than {MAX_LINE} characters are shortened.")
    budget = [_MAX_CELLS]
    rows: list[Row] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, one, other).get_opcodes():
        if tag == "equal":
            result.equal += i2 - i1
            rows.extend(_equal(one, i1, i2, j1, first=i1 == 0 and j1 == 0, last=i2 == len(one) and j2 == len(other)))
        else:
            rows.extend(_changed(one[i1:i2], other[j1:j2], i1, j1, budget))
    result.hidden = max(0, len(rows) - max_rows)
    result.rows = rows[:max_rows]
    return result


def _equal(lines: list[str], start: int, end: int, other: int, *, first: bool, last: bool) -> Iterator[Row]:
    head = 0 if first else _AROUND
    tail = 0 if last else _AROUND
    shift = other - start
    # A fold of one or two lines takes as much room as the lines.
    folded = end - start - head - tail
    for index in range(start, end):
        if folded > 2 and start + head <= index < end - tail:
            if index == start + head:
                yield Row("fold", folded=folded)
            continue
        piece = [(lines[index], False)]
        yield Row("equal", piece, piece, (index + 1, index + shift + 1))


def _changed(one: list[str], other: list[str], i: int, j: int, budget: list[int]) -> Iterator[Row]:
    """Lines opposite to each other; words are compared while they are alike and the budget lasts."""
    for offset in range(max(len(one), len(other))):
        left = one[offset] if offset < len(one) else None
        right = other[offset] if offset < len(other) else None
        numbers = (None if left is None else i + offset + 1, None if right is None else j + offset + 1)
        if left is None or right is None:
            piece = [(left if right is None else right, False)]
            only_left = right is None
            yield Row("left" if only_left else "right", *((piece, None) if only_left else (None, piece)), numbers)
            continue
        yield Row("changed", *_words(left, right, budget), numbers)


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
