"""All feature groups: after those of form, whether place, name, one side alone or an edited picture tells.

Traces in the pixels are not crossed with the answer, as the form of text is: how many colours or edges a picture has
follows from what it shows (a circle has more than a rectangle), so together with the answer they are evidence. The
shortcut to fear runs over "edited": if even the true flag, matched with the answer's words, tells nothing, no trace of
editing can.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ImageRef
from data_prep.audit.features import answer_form, form_group
from data_prep.audit.links import context_names
from data_prep.audit.registry import GROUPS, FeatureGroup, register
from data_prep.audit.view import ContextView, PairView, TextView

_PARTS = re.compile(r"[A-Za-z]+|\d+")
_CONTEXT_BUCKETS, _ANSWER_BUCKETS, _FEW_ANSWER_BUCKETS = 1024, 256, 64
_NAME_BUCKETS, _ID_BUCKETS = 512, 64


def known_groups() -> dict[str, FeatureGroup]:
    """Every registered group by name, in order of registration."""
    return dict(GROUPS)


def chosen_groups(names: Iterable[str | FeatureGroup] | None) -> list[FeatureGroup]:
    """Groups by name (or given as such); all of them for None. Raises ConfigError for an unknown name."""
    given = list(GROUPS if names is None else names)
    if not given:
        raise ConfigError("no feature group was chosen. Fix: name at least one, or leave the option out for all.")
    if unknown := [name for name in given if isinstance(name, str) and name not in GROUPS]:
        raise ConfigError(f"there is no feature group {unknown[0]!r}. Fix: use some of {sorted(GROUPS)}.")
    return [GROUPS[name] if isinstance(name, str) else name for name in given]


def _bucket(part: str, buckets: int) -> int:
    return zlib.crc32(part.encode("utf-8", "surrogatepass")) % buckets


def _bucketed(parts: Iterable[str], buckets: int) -> np.ndarray:
    return np.bincount([_bucket(part, buckets) for part in parts], minlength=buckets).astype(np.float16)


def _words(buckets: int, text: TextView) -> np.ndarray:
    """[buckets] signed hashed bag of words: 1 + log of counts, unit length."""
    hashes = text.words.indices
    signs = np.where(hashes // buckets % 2, 1.0, -1.0)
    bag = np.bincount(hashes % buckets, weights=signs * (1 + np.log(text.words.data)), minlength=buckets)
    return (bag / (np.linalg.norm(bag) or 1.0)).astype(np.float16)


_context_words = partial(_words, _CONTEXT_BUCKETS)


def _answer_words(buckets: int) -> Callable[[PairView], np.ndarray]:
    return lambda view: np.concatenate([answer_form(view), _words(buckets, view.answer)])


def _between(ranks: np.ndarray) -> np.ndarray:
    return 2 * ranks / max(len(ranks) - 1, 1) - 1


def _slots(view: PairView) -> np.ndarray:
    """[contexts, 2] what tells the contexts of a pair apart without looking in: shown position; longer or shorter.

    Of pictures the number of pixels counts: how many bytes they take follows from what they show.
    """
    sizes = np.asarray([len(c.text) + sum(image.width * image.height for image in c.images) for c in view.contexts])
    longer = (sizes[:, None] > sizes).sum(1) + ((sizes[:, None] == sizes).sum(1) - 1) / 2
    return np.stack([_between(np.asarray(view.shown, float)), _between(longer)], 1).astype(np.float32)


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}")
    elif isinstance(value, int | float):
        yield path, float(np.clip(np.nan_to_num(float(value)), -1e12, 1e12))


def _place(view: PairView) -> np.ndarray:
    """[columns] row number: parities, blocks, size; numbers of the provenance in eight buckets by key."""
    index = view.index
    found = np.zeros(8, np.float32)
    for path, number in _numbers(view.pair.provenance):
        found[_bucket(path, 8)] += np.sign(number) * np.log1p(abs(number))
    parities = [index % 2, index // 2 % 2, index // 4 % 2, index % 3 == 0, index % 3 == 1]
    return np.asarray([*parities, np.log1p(index), index / 1000, *found], np.float32)


def _names(view: PairView) -> np.ndarray:
    """[contexts, buckets] each context's name (from the provenance, or its content's digest) whole and in parts."""
    return np.stack([_bucketed([name, *_PARTS.findall(name)], _NAME_BUCKETS) for name in context_names(view)])


def _id_parts(view: PairView) -> np.ndarray:
    # An id may name the supporting run; the model is never shown ids, and that name is not what is asked about here.
    named = {part for name in context_names(view) for part in _PARTS.findall(name)}
    return _bucketed((part for part in _PARTS.findall(view.pair.pair_id) if part not in named), _ID_BUCKETS)


@form_group("forensics", "compression, noise, sharpness, edges and number of colours", crossed=False)
def _forensic(context: ContextView) -> list[float]:
    """Means over the context's pictures, as logarithms; zeros for text."""
    rows = [_traces(_bytes_of(reference)) for reference in context.references] or [np.zeros(len(_of_a_blank()))]
    return [float(value) for value in np.mean(rows, axis=0)]


def _bytes_of(image: ImageRef) -> bytes:
    return image.bytes if image.bytes is not None else Path(image.path).read_bytes()


def _traces(data: bytes) -> np.ndarray:
    from data_prep.images.decode import ImageRejected
    from data_prep.images.forensics import image_features

    try:
        values = np.asarray([value for _, value in sorted(image_features(data).items())])
    except ImageRejected as error:
        raise ConfigError(f"an image of {len(data)} bytes cannot be opened ({error}). Fix: drop the pair.") from None
    return np.sign(values) * np.log1p(np.abs(values))


@cache
def _of_a_blank() -> np.ndarray:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "PNG")
    return _traces(stream.getvalue())


def _edited(view: PairView) -> np.ndarray:
    """[contexts, 1] whether the provenance calls the picture of a context edited."""
    sides = [view.pair.provenance.get("supporting"), *(view.pair.provenance.get("confounders") or [])]
    flags = [isinstance(side, dict) and side.get("edited") is True for side in sides]
    return np.asarray(flags if len(flags) == len(view.contexts) else [False] * len(view.contexts), np.float32)[:, None]


_MORE = (
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
        "one side", crossed=(_slots, _answer_words(_ANSWER_BUCKETS)), wide=True,
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
        crossed=(_edited, _answer_words(_FEW_ANSWER_BUCKETS)),
    ),
)  # fmt: skip
for _group in _MORE:
    register(_group)
