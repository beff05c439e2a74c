"""Drafts of a patch in an agent's words: what it wrote first and altered later, or says nearly as the patch does.

The likeness of two texts is rapidfuzz's ``ratio``: 100 times the share of characters that need be neither deleted nor
inserted, 100 when they are equal. A piece of an agent's turn is a draft when its likeness to an added line is at least
``ALIKE`` and greater than to every old line of that patch, be it with single blanks between words or in the canonical
form. Pieces are lines, also those inside strings of JSON and between tags, and what stands in quotes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from rapidfuzz.fuzz import ratio
from rapidfuzz.process import cdist

from data_prep.trajectories.actions import Span, disjoint
from data_prep.trajectories.diffs import MIN_CHARS, PatchLines, canonical, tight
from data_prep.trajectories.run import NUMBERING, PATCH_MASKED, Message

ALIKE = 80
_LONGEST = 600
_LINES_AT_ONCE = 256
_BETWEEN = re.compile(
    rf"\n|\\n|{re.escape(PATCH_MASKED)}|</?(?:function|parameter|invoke|path|content|diff|search|replace)\b[^>\n]{{0,99}}>"
)
_QUOTED = re.compile(r"`([^`\n]{12,400})`|\"([^\"\n]{12,400})\"|'([^'\n]{12,400})'")
# What is quoted and no more than a name or a path is no draft.
_EXPRESSION = re.compile(r"[^\w./\s-]")


def drafts_in(messages: Sequence[Message], patches: Iterable[PatchLines], turns: Iterable[int]) -> list[Span]:
    """Places of the drafts in these turns, so far as they are the agent's, in order and apart."""
    places: dict[str, list[Span]] = defaultdict(list)
    bare: dict[str, str] = {}
    for index in turns:
        agent = messages[index].role == "assistant"
        for piece, form, start, end in _pieces(messages[index].content) if agent else ():
            places[piece].append((index, start, end))
            bare[piece] = form
    found: set[str] = set()
    for patch in patches:
        old = {_blanked(line) for line in patch.original}
        added = {_blanked(line) for line in patch.added if len(tight(line)) >= MIN_CHARS} - old
        found.update(_nearer(bare, bare.keys(), added, old))
        found.update(_nearer(bare, bare.values(), map(canonical, added), map(canonical, old)))
    return disjoint(place for piece in found for place in places[piece])


def _blanked(text: str) -> str:
    return " ".join(text.split())


@lru_cache(maxsize=2048)
def _pieces(text: str) -> list[tuple[str, str, int, int]]:
    """The pieces of a turn in both forms, and their places. Kept, for a run is masked once for each of its couples."""
    places, start = [], 0
    for match in _BETWEEN.finditer(text):
        places.append((NUMBERING.match(text, start, match.start()).end(), match.start()))
        start = match.end()
    places.append((NUMBERING.match(text, start).end(), len(text)))
    places += [
        found.span(found.lastindex) for found in _QUOTED.finditer(text) if _EXPRESSION.search(found[found.lastindex])
    ]
    pieces = []
    for start, end in places:
        if MIN_CHARS * 2 // 3 <= end - start <= _LONGEST and (piece := text[start:end].strip()):
            start = text.index(piece[0], start)
            pieces.append((_blanked(piece), canonical(piece), start, start + len(piece)))
    return pieces


def _nearer(pieces: Iterable[str], forms: Iterable[str], added: Iterable[str], old: Iterable[str]) -> Iterator[str]:
    """The pieces whose form is like an added line, and less like every old one."""
    pieces, forms = list(pieces), list(forms)
    likeness = _likeness(forms, list(added), ALIKE)
    near = np.flatnonzero(likeness)
    nearer = likeness[near] > _likeness([forms[i] for i in near], list(old))
    return (pieces[i] for i in near[nearer])


def _likeness(forms: list[str], lines: list[str], at_least: float = 0) -> np.ndarray:
    """For each form the greatest likeness to a line; 0 where it is smaller than ``at_least``. Shape (forms,)."""
    best = np.zeros(len(forms), np.float32)
    for at in range(0, len(lines) if forms else 0, _LINES_AT_ONCE):
        scores = cdist(forms, lines[at : at + _LINES_AT_ONCE], scorer=ratio, score_cutoff=at_least)
        np.maximum(best, scores.max(axis=1), out=best)
    return best
