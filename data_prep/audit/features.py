"""Content-free feature groups: how long, how many turns, how masked, how formatted, how it ended, what files.

Counts are taken as logarithms: a difference of two then says how many per cent longer, at any length.
Each group comes a second time crossed with the form of the answer ("x answer"): when both directions of a couple are in
the file, nothing about the contexts alone can tell, but "the longer patch belongs to the longer run" still could.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from data_prep.audit.registry import FeatureGroup, register
from data_prep.audit.view import ContextView, PairView, TextView

# <PATCH_MASKED>, <ELIDED 3,120 tokens>, <REDACTED:email>, [... 812 characters left out ...]
_MARKER = re.compile(r"<([A-Z]{3,}[A-Z_]*)\b[^<>\n]{0,80}>|\[\.\.\. [^\]\n]{0,80} \.\.\.\]")
_MARKER_KINDS = ("PATCH_MASKED", "ELIDED", "REDACTED")
_RETURN_CODE = re.compile(
    r"(?:<returncode>|exit(?:ed with)?[ _](?:code|status)[:= ]*|return ?code[:= ]+)\s*(-?\d{1,4})", re.I
)
# Hunks, files, added and removed lines of a diff.
_DIFF_MARKS = (r"^@@ ", r"^\+\+\+ ", r"^\+(?!\+\+)", r"^-(?!--)")
_KINDS = (string.digits, string.ascii_uppercase, string.ascii_lowercase, string.whitespace, string.punctuation)
# Of each byte: 0 to 4 as above, 5 for the rest.
_KIND_OF = np.asarray([next((n for n, kind in enumerate(_KINDS) if chr(byte) in kind), 5) for byte in range(256)])


def _logs(*counts: float) -> list[float]:
    return [float(np.log1p(count)) for count in counts]


def _found(text: str, *patterns: str) -> list[int]:
    return [len(re.findall(pattern, text, re.M)) for pattern in patterns]


def answer_form(view: PairView) -> np.ndarray:
    """[columns] length and shape of the answer, none of its words."""
    return view.answer.once(_shape)


def _shape(answer: TextView) -> np.ndarray:
    text = answer.text
    digits = answer.byte_counts[_KIND_OF == 0].sum()
    counts = (len(text), text.count("\n"), len(text.split()), *_found(text, *_DIFF_MARKS), digits)
    number = text.strip().replace(".", "").isdigit()
    return np.asarray([*_logs(*counts, len(_MARKER.findall(text))), text[:1].isupper(), number], np.float32)


def form_group(name: str, description: str, crossed: bool = True) -> Callable:
    """Registers a function of a context as a group, and once more matched with the form of the answer."""

    def add(of: Callable[[ContextView], list[float]]) -> Callable[[ContextView], list[float]]:
        def columns(view: PairView) -> np.ndarray:
            return np.asarray([context.once(of) for context in view.contexts], np.float32)

        register(FeatureGroup(name, description, columns=columns))
        if crossed:
            matched = f"{description}; matched with length and shape of the answer"
            register(FeatureGroup(f"{name} x answer", matched, crossed=(columns, answer_form)))
        return of

    return add


@form_group("lengths", "characters, bytes, words, lines, distinct words, length of lines and words")
def _lengths(context: TextView) -> list[float]:
    text, words, lines = context.text, context.words.sum(), context.text.count("\n") + 1
    counts = (len(text), context.byte_counts.sum(), words, len(text.split()), lines, context.words.nnz)
    return [*_logs(*counts), len(text) / lines / 100, len(text) / (words + 1) / 10]


@form_group("turns", "messages by role, their lengths, first and last role")
def _turns(context: ContextView) -> list[float]:
    roles = [role for role, _ in context.turns]
    sizes = [len(content) for _, content in context.turns] or [0]
    known = ("system", "user", "assistant", "tool")
    switches = sum(one != other for one, other in pairwise(roles))
    return [
        *_logs(len(roles), *(roles.count(role) for role in known), sum(role not in known for role in roles), switches),
        *_logs(max(sizes), min(sizes), float(np.median(sizes)), sizes[0]),
        float(roles[:1] == ["assistant"]),
        float(roles[-1:] == ["assistant"]),
    ]


@form_group("masks", "markers of masked, elided and redacted text: number, places, amount left out")
def _masks(context: ContextView) -> list[float]:
    places: list[float] = []
    kinds = [0] * (len(_MARKER_KINDS) + 1)
    left_out = 0
    for found in _MARKER.finditer(context.text):
        places.append(found.start() / len(context.text))
        name = found.group(1) or "ELIDED"
        kinds[next((n for n, kind in enumerate(_MARKER_KINDS) if name.startswith(kind)), -1)] += 1
        left_out += sum(int(number.replace(",", "")[:12]) for number in re.findall(r"\d[\d,]*", found.group()))
    where = [places[0], float(np.mean(places)), places[-1]] if places else [0.5] * 3
    return [*_logs(len(places), *kinds, left_out), *where, len(places) / (len(context.text) / 1000 + 1)]


@form_group("formatting", "classes of characters, code fences, blank lines, lists, first and last character")
def _formatting(context: TextView) -> list[float]:
    text, counts = context.text, context.byte_counts / (context.byte_counts.sum() or 1)
    lists_and_headings = _found(text, r"^\s*(?:[-*+]|\d+[.)])\s", r"^#{1,6}\s")
    blank_and_trailing = _found(text, r"\n[ \t]*(?=\n)", r"[ \t]+(?=\n)")
    first, last = text[:1], text[-1:]
    return [
        *np.bincount(_KIND_OF, weights=counts, minlength=6),
        *(counts[ord(mark)] * 10 for mark in ".,;:!?'\"`()[]{}<>=_-*#/\\|\t"),
        *_logs(*(text.count(mark) for mark in ("```", "\r", "  ", "\n\n\n")), *lists_and_headings),
        *(count / (text.count("\n") + 1) for count in blank_and_trailing),
        *map(float, (first.isspace(), last.isspace(), last == "\n", last.isalnum(), first.isupper())),
    ]


@form_group("outcome", "last message, return codes, words such as error and passed")
def _outcome(context: ContextView) -> list[float]:
    codes = [int(code) for code in _RETURN_CODE.findall(context.text)]
    last = context.turns[-1][1] if context.turns else ""
    lowered = context.text.lower()
    failed = sum(code != 0 for code in codes)
    return [
        *_logs(len(last), last.count("\n"), len(codes), failed),
        failed / (len(codes) or 1),
        float(codes[-1:] not in ([], [0])),
        *_logs(*(lowered.count(word) for word in ("traceback", "error", "failed", "passed", "warning", "submit"))),
        float("submit" in last.lower()),
    ]


@form_group("images", "bytes, width, height and bytes per pixel as the image files state them")
def _images(context: ContextView) -> list[float]:
    if not context.images:
        return [0.0] * 8
    sizes, widths, heights = np.asarray([(i.size, i.width, i.height) for i in context.images], float).T
    pixels = widths * heights
    return [
        *_logs(len(sizes), sizes.sum(), sizes[-1], widths.mean(), heights.mean(), pixels.sum()),
        float(np.mean(sizes / pixels)),
        float(np.mean(np.log(widths / heights))),
    ]
