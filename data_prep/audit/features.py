"""Content-free feature groups: how long, how many turns, how masked, how formatted, how it ended, what files.

Counts are taken as logarithms: a difference of two then says how many per cent longer, at any length.
Each group comes a second time crossed with the form of the answer ("x answer"): when both directions of a couple are in
the file, nothing about the contexts alone can tell, but "the longer patch belongs to the longer run" still could.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from data_prep.audit.registry import FeatureGroup, register
from data_prep.audit.view import ContextView, PairView, TextView

# <PATCH_MASKED>, <ELIDED 3,120 tokens>, <REDACTED:email>, [... 812 characters left out ...]
_MARKER = re.compile(r"<([A-Z]{3,}[A-Z_]*)\b[^<>\n]{0,80}>|\[\.\.\. [^\]\n]{0,80} \.\.\.\]")
_MARKER_KINDS = ("PATCH_MASKED", "ELIDED", "REDACTED")
_NUMBER = re.compile(r"\d[\d,]*")
_BLANK_LINE = re.compile(r"\n[ \t]*(?=\n)")
_TRAILING_SPACE = re.compile(r"[ \t]+(?=\n)")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s", re.M)
_HEADING = re.compile(r"^#{1,6}\s", re.M)
_RETURN_CODE = re.compile(
    r"(?:<returncode>|exit(?:ed with)?[ _](?:code|status)[:= ]*|return ?code[:= ]+)\s*(-?\d{1,4})", re.I
)
_HUNK = re.compile(r"^@@ ", re.M)
_FILE = re.compile(r"^\+\+\+ ", re.M)
_PLUS = re.compile(r"^\+(?!\+\+)", re.M)
_MINUS = re.compile(r"^-(?!--)", re.M)

_ASCII = np.arange(256)
_DIGITS = (_ASCII >= 48) & (_ASCII <= 57)
_UPPER = (_ASCII >= 65) & (_ASCII <= 90)
_LOWER = (_ASCII >= 97) & (_ASCII <= 122)
_OTHER = _ASCII >= 128
_SPACES = np.isin(_ASCII, [9, 10, 11, 12, 13, 32])
_PUNCTUATION = (_ASCII > 32) & (_ASCII < 127) & ~_DIGITS & ~_UPPER & ~_LOWER


def _rows(view: PairView, of: Callable[[ContextView], list[float]]) -> np.ndarray:
    return np.asarray([context.once(of) for context in view.contexts], np.float32)


def _logs(*counts: float) -> list[float]:
    return [float(np.log1p(count)) for count in counts]


def _lengths(context: TextView) -> list[float]:
    text = context.text
    words = float(context.word_counts.sum())
    lines = text.count("\n") + 1
    counts = (len(text), int(context.byte_counts.sum()), words, len(text.split()), lines, len(context.word_hashes))
    return [*_logs(*counts), len(text) / lines / 100, len(text) / (words + 1) / 10]


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


def _masks(context: ContextView) -> list[float]:
    places: list[float] = []
    kinds = [0] * (len(_MARKER_KINDS) + 1)
    left_out = 0
    for found in _MARKER.finditer(context.text):
        places.append(found.start() / len(context.text))
        name = found.group(1) or "ELIDED"
        kinds[next((n for n, kind in enumerate(_MARKER_KINDS) if name.startswith(kind)), -1)] += 1
        left_out += sum(int(number.replace(",", "")[:12] or 0) for number in _NUMBER.findall(found.group()))
    where = [places[0], float(np.mean(places)), places[-1]] if places else [0.5] * 3
    return [*_logs(len(places), *kinds, left_out), *where, len(places) / (len(context.text) / 1000 + 1)]


def _formatting(context: TextView) -> list[float]:
    text, counts = context.text, context.byte_counts
    total = int(counts.sum()) or 1
    lines = text.count("\n") + 1
    shares = [counts[mask].sum() / total for mask in (_DIGITS, _UPPER, _LOWER, _OTHER, _SPACES, _PUNCTUATION)]
    single = [counts[ord(mark)] / total * 10 for mark in ".,;:!?'\"`()[]{}<>=_-*#/\\|\t"]
    return [
        *(float(value) for value in (*shares, *single)),
        *_logs(text.count("```"), text.count("\r"), text.count("  "), text.count("\n\n\n")),
        *_logs(len(_LIST_ITEM.findall(text)), len(_HEADING.findall(text))),
        len(_BLANK_LINE.findall(text)) / lines,
        len(_TRAILING_SPACE.findall(text)) / lines,
        float(text[:1].isspace()),
        float(text[-1:].isspace()),
        float(text[-1:] == "\n"),
        float(text[-1:].isalnum()),
        float(text[:1].isupper()),
    ]


def _outcome(context: ContextView) -> list[float]:
    text = context.text
    codes = [int(code) for code in _RETURN_CODE.findall(text)]
    last = context.turns[-1][1] if context.turns else ""
    lowered = text.lower()
    failed = sum(code != 0 for code in codes)
    return [
        *_logs(len(last), last.count("\n"), len(codes), failed),
        failed / (len(codes) or 1),
        float(bool(codes) and codes[-1] != 0),
        *_logs(*(lowered.count(word) for word in ("traceback", "error", "failed", "passed", "warning", "submit"))),
        float("submit" in last.lower()),
    ]


def _images(context: ContextView) -> list[float]:
    images = context.images
    if not images:
        return [0.0] * 8
    bytes_, widths, heights = (
        np.asarray([getattr(image, name) for image in images], float) for name in ("size", "width", "height")
    )
    pixels = widths * heights
    return [
        *_logs(len(images), bytes_.sum(), bytes_[-1], widths.mean(), heights.mean(), pixels.sum()),
        float(np.mean(bytes_ / pixels)),
        float(np.mean(np.log(widths / heights))),
    ]


def answer_form(view: PairView) -> np.ndarray:
    """[columns] length and shape of the answer, none of its words."""
    return view.answer.once(_shape)


def _shape(answer: TextView) -> np.ndarray:
    text = answer.text
    counts = _logs(
        len(text),
        text.count("\n"),
        len(text.split()),
        *(len(pattern.findall(text)) for pattern in (_HUNK, _FILE, _PLUS, _MINUS)),
        int(answer.byte_counts[_DIGITS].sum()),
        len(_MARKER.findall(text)),
    )
    return np.asarray([*counts, float(text[:1].isupper()), float(text.strip().replace(".", "").isdigit())], np.float32)


def _add(name: str, description: str, of: Callable[[ContextView], list[float]], answer_too: bool = True) -> None:
    def columns(view: PairView) -> np.ndarray:
        return _rows(view, of)

    register(FeatureGroup(name, description, columns=columns))
    if answer_too:
        register(
            FeatureGroup(
                f"{name} x answer",
                f"{description}; matched with length and shape of the answer",
                crossed=(columns, answer_form),
            )
        )


_add("lengths", "characters, bytes, words, lines, distinct words, length of lines and words", _lengths)
_add("turns", "messages by role, their lengths, first and last role", _turns)
_add("masks", "markers of masked, elided and redacted text: number, places, amount left out", _masks)
_add("formatting", "classes of characters, code fences, blank lines, lists, first and last character", _formatting)
_add("outcome", "last message, return codes, words such as error and passed", _outcome)
_add("images", "bytes, width, height and bytes per pixel as the image files state them", _images)
