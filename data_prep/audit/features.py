"""Feature groups, the ways in which a label might be told without the evidence.

Those of form come first: how long, how many turns, how masked, how formatted, how it ended, what files. Counts are
logarithms: a difference of two then says how many per cent longer, at any length. Such a group comes a second time
crossed with the form of the answer ("x answer"): when both directions of a couple are in the file, nothing about the
contexts alone can tell, but "the longer patch belongs to the longer run" still could.

Traces in the pixels are not crossed with the answer: how many colours or edges a picture has follows from what it shows
(a circle has more than a rectangle), so together with the answer they are evidence. The shortcut to fear runs over
"edited": if even the true flag, matched with the answer's words, tells nothing, no trace of editing can.
"""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from contextrl_verl.errors import ConfigError
from data_prep.audit.links import context_names
from data_prep.audit.view import ContextView, PairView, TextView

# [contexts, columns] numbers of each context, and [columns] numbers of the pair as a whole.
PerContext = Callable[[PairView], np.ndarray]
PerPair = Callable[[PairView], np.ndarray]
Sees = Literal["form", "one side", "evidence"]


@dataclass(frozen=True)
class FeatureGroup:
    """A way to guess the supporting context: a row of the report, with one line for its readers.

    Attributes:
        sees: ``form`` (free of content), ``one side`` (words of the answer or of the contexts, never both), or
            ``evidence`` (both, so a guess may be rightly better than chance).
        columns: numbers of each context, which score it by themselves.
        crossed: numbers of each context, and numbers of the pair they are multiplied with: e.g. "this is the longer
            context" with "the answer is long".
        wide: many hashed columns; only the linear model sees them.
        memorises: whether folds may share runs, so that the fate of a run in other couples can be learned.
    """

    name: str
    description: str
    sees: Sees = "form"
    columns: PerContext | None = None
    crossed: tuple[PerContext, PerPair] | None = None
    wide: bool = False
    memorises: bool = False


GROUPS: dict[str, FeatureGroup] = {}


def register(group: FeatureGroup) -> None:
    """Add a group to those audited by default. Raises ConfigError if the name is taken."""
    if GROUPS.setdefault(group.name, group) is not group:
        raise ConfigError(f"feature group {group.name!r} is registered twice. Fix: choose another name.")


def chosen_groups(names: Iterable[str | FeatureGroup] | None) -> list[FeatureGroup]:
    """Groups by name (or given as such); all of them for None. Raises ConfigError for an unknown name."""
    given = list(GROUPS if names is None else names)
    if unknown := [name for name in given if isinstance(name, str) and name not in GROUPS]:
        raise ConfigError(f"there is no feature group {unknown[0]!r}. Fix: use some of {sorted(GROUPS)}.")
    return [GROUPS[name] if isinstance(name, str) else name for name in given]


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
_ROLES = ("system", "user", "assistant", "tool")
_PARTS = re.compile(r"[A-Za-z]+|\d+")
# Numbers of a picture in data_prep.images.forensics.
_TRACES = 18


def _logs(*counts: float) -> list[float]:
    return [float(np.log1p(count)) for count in counts]


def _found(text: str, *patterns: str) -> list[int]:
    return [len(re.findall(pattern, text, re.M)) for pattern in patterns]


def answer_form(view: PairView) -> np.ndarray:
    """[columns] length and shape of the answer, none of its words."""
    return view.answer.once(_shape)


def _shape(answer: TextView) -> np.ndarray:
    text, digits = answer.text, answer.byte_counts[_KIND_OF == 0].sum()
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
    text, words, lines = context.text, context.words.total, context.text.count("\n") + 1
    counts = (len(text), context.byte_counts.sum(), words, len(text.split()), lines, len(context.words.ids))
    return [*_logs(*counts), len(text) / lines / 100, len(text) / (words + 1) / 10]


@form_group("turns", "messages by role, their lengths, first and last role")
def _turns(context: ContextView) -> list[float]:
    roles = [role for role, _ in context.turns]
    sizes = [len(content) for _, content in context.turns] or [0]
    switches = sum(one != other for one, other in pairwise(roles))
    by_role = [*map(roles.count, _ROLES), sum(role not in _ROLES for role in roles)]
    lengths = (max(sizes), min(sizes), float(np.median(sizes)), sizes[0])
    ends = (float(end == ["assistant"]) for end in (roles[:1], roles[-1:]))
    return [*_logs(len(roles), *by_role, switches, *lengths), *ends]


@form_group("masks", "markers of masked, elided and redacted text: number, places, amount left out")
def _masks(context: ContextView) -> list[float]:
    found = list(_MARKER.finditer(context.text))
    places = [mark.start() / len(context.text) for mark in found]
    names = [mark.group(1) or "ELIDED" for mark in found]
    kinds = [sum(name.startswith(kind) for name in names) for kind in _MARKER_KINDS]
    numbers = (number for mark in found for number in re.findall(r"\d[\d,]*", mark.group()))
    left_out = sum(int(number.replace(",", "")[:12]) for number in numbers)
    where = [places[0], float(np.mean(places)), places[-1]] if places else [0.5] * 3
    return [
        *_logs(len(places), *kinds, len(names) - sum(kinds), left_out),
        *where,
        len(places) / (len(context.text) / 1000 + 1),
    ]


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
    last, lowered = context.turns[-1][1] if context.turns else "", context.text.lower()
    failed = sum(code != 0 for code in codes)
    sizes = _logs(len(last), last.count("\n"), len(codes), failed)
    words = _logs(*(lowered.count(word) for word in ("traceback", "error", "failed", "passed", "warning", "submit")))
    ended_badly, submits = codes[-1:] not in ([], [0]), "submit" in last.lower()
    return [*sizes, failed / (len(codes) or 1), float(ended_badly), *words, float(submits)]


@form_group("images", "bytes, width, height and bytes per pixel as the image files state them")
def _images(context: ContextView) -> list[float]:
    if not context.images:
        return [0.0] * 8
    sizes, widths, heights = np.asarray(context.images, float).T
    pixels = widths * heights
    counts = (len(sizes), sizes.sum(), sizes[-1], widths.mean(), heights.mean(), pixels.sum())
    return [*_logs(*counts), float(np.mean(sizes / pixels)), float(np.mean(np.log(widths / heights)))]


@form_group("forensics", "compression, noise, sharpness, edges and number of colours", crossed=False)
def _forensic(context: ContextView) -> list[float]:
    """Means over the context's pictures, as logarithms; zeros for text."""
    from data_prep.images.forensics import image_features

    found = context.of_images(lambda data: [value for _, value in sorted(image_features(data).items())])
    rows = np.asarray(found or [[0.0] * _TRACES])
    return np.mean(np.sign(rows) * np.log1p(np.abs(rows)), axis=0).tolist()


def _bucketed(parts: Iterable[str], buckets: int, weights: list[float] | None = None) -> np.ndarray:
    """[buckets] how many parts each has by hash, or their weights."""
    places = [zlib.crc32(part.encode("utf-8", "surrogatepass")) % buckets for part in parts]
    return np.bincount(places, weights, minlength=buckets)


def _words(buckets: int, text: TextView) -> np.ndarray:
    """[buckets] signed hashed bag of words: 1 + log of counts, unit length."""
    hashes = text.words.ids
    signs = np.where(hashes // buckets % 2, 1.0, -1.0)
    bag = np.bincount(hashes % buckets, weights=signs * (1 + np.log(text.words.counts)), minlength=buckets)
    return (bag / (np.linalg.norm(bag) or 1.0)).astype(np.float16)


_context_words = partial(_words, 1024)


def _answer_words(buckets: int) -> PerPair:
    return lambda view: np.concatenate([answer_form(view), _words(buckets, view.answer)])


def _slots(view: PairView) -> np.ndarray:
    """[contexts, 2] what tells the contexts of a pair apart without looking in: shown position; longer or shorter.

    Of pictures the number of pixels counts: how many bytes they take follows from what they show.
    """
    sizes = np.asarray([len(c.text) + sum(width * height for _, width, height in c.images) for c in view.contexts])
    longer = (sizes[:, None] > sizes).sum(1) + ((sizes[:, None] == sizes).sum(1) - 1) / 2
    return (2 * np.stack([view.shown, longer], 1) / max(len(sizes) - 1, 1) - 1).astype(np.float32)


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}")
    elif isinstance(value, int | float):
        yield path, float(np.clip(np.nan_to_num(float(value)), -1e12, 1e12))


def _place(view: PairView) -> np.ndarray:
    """[columns] row number: parities, blocks, size; numbers of the provenance in eight buckets by key."""
    index, found = view.index, dict(_numbers(view.pair.provenance))
    sizes = [np.sign(number) * np.log1p(abs(number)) for number in found.values()]
    parities = [index % 2, index // 2 % 2, index // 4 % 2, index % 3 == 0, index % 3 == 1]
    return np.asarray([*parities, np.log1p(index), index / 1000, *_bucketed(found, 8, sizes)], np.float32)


def _names(view: PairView) -> np.ndarray:
    """[contexts, buckets] each context's name (from the provenance, or its content's digest) whole and in parts."""
    return np.stack([_bucketed([name, *_PARTS.findall(name)], 512) for name in context_names(view)]).astype(np.float16)


def _id_parts(view: PairView) -> np.ndarray:
    # An id may name the supporting run; the model is never shown ids, and that name is not what is asked about here.
    named = {part for name in context_names(view) for part in _PARTS.findall(name)}
    return _bucketed((part for part in _PARTS.findall(view.pair.pair_id) if part not in named), 64)


def _edited(view: PairView) -> np.ndarray:
    """[contexts, 1] whether the provenance calls the picture of a context edited."""
    sides = [view.pair.provenance.get("supporting"), *(view.pair.provenance.get("confounders") or [])]
    flags = [isinstance(side, dict) and side.get("edited") is True for side in sides]
    return np.asarray(flags if len(flags) == len(view.contexts) else [False] * len(view.contexts), np.float32)[:, None]


for _group in (
    FeatureGroup(
        "position",
        "position in the prompt; row number and numbers of the provenance, matched with position and length",
        columns=lambda view: _slots(view)[:, :1], crossed=(_slots, _place),
    ),
    FeatureGroup(
        "identity",
        "which run or image it is, learned from its other couples; parts of the pair's id",
        columns=_names, crossed=(_slots, _id_parts), wide=True, memorises=True,
    ),
    FeatureGroup(
        "answer alone",
        "words, length and shape of the answer, matched with position and length only",
        "one side", crossed=(_slots, _answer_words(256)), wide=True,
    ),
    FeatureGroup(
        "context alone",
        "hashed words of each context, without query and answer",
        "one side", columns=lambda view: np.stack([c.once(_context_words) for c in view.contexts]), wide=True,
    ),
    FeatureGroup("edited", "whether a picture was edited", columns=_edited),
    FeatureGroup(
        "edited x answer",
        "whether a picture was edited; matched with words, length and shape of the answer",
        crossed=(_edited, _answer_words(64)),
    ),
):  # fmt: skip
    register(_group)
