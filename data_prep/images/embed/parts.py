"""From what a user writes to an embedder, and its work in parts: names of stored pictures in, vectors out.

Beside the vectors stands what it takes to tell whether two pictures are the same one, encoded or sized anew. A
perceptual hash alone would not do: flat drawings that differ in one small shape or in a colour have equal hashes, and
these are the couples that are wanted. Encoding again changes every cell of a small copy a little, another shape changes
some cells a lot.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel, Stage, is_of_item
from data_prep.common.pipeline import describe_inputs, fingerprint
from data_prep.images.embed.endpoint import EndpointEmbedder
from data_prep.images.store import ImageStore
from data_prep.models.spec import load_sentence_encoder

_BATCH = 64
_SIDE = 16
LOOK_BYTES = _SIDE * _SIDE * 3
# The descriptor's small copy.
_COPY = 64
# Low frequencies kept a side: brightness, colour differences.
_BRIGHT, _COLOUR = 8, 6
_HUES, _GREYS, _QUARTERS = 12, 4, 2
_DIRECTIONS, _CELLS = 8, 4
# A view as faint as this (in units of its own) says nothing about a picture, and is not blown up to full length:
# brightness, colour differences, hues and greys, edges.
_FAINT = (2.0, 2.0, 0.02, 0.5)
_PLACES = np.indices((_COPY, _COPY)).reshape(2, -1)


class Descriptor:
    """A picture's colours and structure as a vector: no weights, no download, the same on every machine.

    Four views of a small copy of the picture: where which colour is (low frequencies of brightness and of two colour
    differences), how much of each hue and grey is in each quarter, and which way edges run in each cell of a grid. What
    all pictures share is taken out of each view: else any two photographs, or charts on white, would score above 0.9.
    """

    name = "descriptor-2"

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, 328) float64; pictures of mode RGB and any size."""
        return np.stack([_described(image) for image in images])


def _described(image: Image.Image) -> np.ndarray:
    from scipy.fft import dctn
    from scipy.ndimage import gaussian_filter

    small = image.resize((_COPY, _COPY), Image.Resampling.BOX, reducing_gap=None)
    bands = np.asarray(small.convert("YCbCr"), dtype=np.float64) - 128
    hue, saturation, value = np.asarray(small.convert("HSV"), dtype=np.float64).reshape(-1, 3).T / 256
    waves = dctn(bands, axes=(0, 1), norm="ortho") / _COPY
    # A pixel counts for its hue as far as it is colourful.
    hues = _counted(_QUARTERS, hue, _HUES, saturation * value)
    greys = _counted(_QUARTERS, value, _GREYS, 1 - saturation * value)
    down, across = np.gradient(bands, axis=(0, 1))
    # Brightness and colour together: a red shape on an equally bright ground has edges too.
    xx, yy, xy = ((one * other).sum(axis=2).ravel() for one, other in ((across, across), (down, down), (across, down)))
    edges = _counted(_CELLS, np.arctan2(2 * xy, xx - yy) / (2 * np.pi) % 1, _DIRECTIONS, 2 * np.sqrt(xx + yy))
    # A little of each cell and direction counts for its neighbours, so that a small shift is a small change.
    edges = gaussian_filter(
        edges.reshape(_CELLS, _CELLS, _DIRECTIONS), 0.5, mode=("nearest", "nearest", "wrap")
    ).ravel()
    views = (
        waves[:_BRIGHT, :_BRIGHT, 0].ravel()[1:],  # the mean of brightness is no feature, that of a colour is
        waves[:_COLOUR, :_COLOUR, 1:].ravel(),
        _apart(np.concatenate([hues, greys])),
        _apart(edges),
    )
    # A constant keeps a picture without any feature from having no direction.
    parts = [view / (np.linalg.norm(view) + faint) for view, faint in zip(views, _FAINT, strict=True)]
    return np.concatenate([*parts, [2e-3]])


def _counted(cells: int, kind: np.ndarray, kinds: int, weight: np.ndarray) -> np.ndarray:
    """(cells * cells * kinds,) mean weight by place and kind; ``kind`` is from 0 to 1."""
    inside = ((0, _COPY), (0, _COPY), (0, 1))
    summed, _ = np.histogramdd((*_PLACES, kind), (cells, cells, kinds), inside, weights=weight)
    return summed.ravel() * (cells / _COPY) ** 2


def _apart(shares: np.ndarray) -> np.ndarray:
    """Roots, less their mean, which all pictures share."""
    roots = np.sqrt(shares)
    return roots - roots.mean()


class SentenceEncoder:
    """A model that sentence-transformers loads and that takes pictures: SigLIP, CLIP, Qwen3-VL-Embedding and others.

    It is loaded with the first picture. Code that comes with it is never run.
    """

    def __init__(self, model: str) -> None:
        self.model, self.name = model, f"model:{model}"
        if Path(model).is_dir():
            files = sorted(Path(at) / name for at, _, names in os.walk(model) for name in names)
            self.name += f"@{fingerprint(describe_inputs(files))}"

    @cached_property
    def _loaded(self) -> Any:
        return load_sentence_encoder(self.model, "The embedder", ConfigError)

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) numbers; raises ConfigError: the model cannot be loaded, or takes no pictures."""
        model = self._loaded
        try:
            return model.encode(images, batch_size=16, convert_to_numpy=True, show_progress_bar=False)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"The model {self.model!r} does not take pictures ({str(error)[:300]}). Fix: one that does, such as a "
                "SigLIP or CLIP model or Qwen3-VL-Embedding."
            ) from None


@lru_cache(maxsize=2)
def make_embedder(spec: str) -> Any:
    """The embedder of that description; the same object for the same one, so that a process loads a model once.

    It has ``name``, which says everything its vectors depend on, and ``embed``, from pictures of mode RGB to (N, D)
    numbers, a row of NaN for a picture that it does not take. Raises ConfigError: no such embedder, or an endpoint's
    options that make no sense.
    """
    kind, _, rest = (part.strip() for part in spec.partition(":"))
    kinds = {"hf": SentenceEncoder, "st": SentenceEncoder, "endpoint": EndpointEmbedder}
    if kind == "descriptor" and not rest:
        return Descriptor()
    if kind in kinds and rest:
        return kinds[kind](rest)
    raise ConfigError(
        f"The embedder is {spec!r}. Fix: descriptor, hf:NAME_OR_FOLDER, st:NAME_OR_FOLDER or 'endpoint:MODEL "
        "base_url=URL [NAME=VALUE ...]'."
    )


def unit_rows(embedder: Any, images: Sequence[Image.Image]) -> np.ndarray:
    """(N, D) float32: the embedder's rows divided by their lengths in float64; rows of NaN stay. Raises ConfigError:
    another shape, an infinite number or a row of zeros, which has no direction."""
    rows = np.asarray(embedder.embed(images), dtype=np.float64)
    if rows.ndim != 2:
        raise ConfigError(
            f"{embedder.name} gives vectors of shape {rows.shape}, not one a picture. Fix: another model."
        )
    lengths = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~np.isnan(rows).all(axis=1) & ~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        raise ConfigError(
            f"{embedder.name} gives a vector of length {lengths[wrong[0]]:g} for picture {wrong[0]} of a batch. "
            "Fix: another model, or another precision if this one overflows."
        )
    return (rows / lengths[:, None]).astype(np.float32)


def perceptual_hash(image: Image.Image) -> int:
    """imagehash's 64-bit pHash as a number."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)


def look(image: Image.Image) -> np.ndarray:
    """(768,) uint8: the picture's 16 x 16 cells' mean colours."""
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=None), np.uint8).reshape(-1)


def plan_embed(
    images: Iterable[str], store: Path, embedder: str = "descriptor", *, per_part: int = 1024
) -> list[dict[str, Any]]:
    """Payloads for :func:`embed_part`; each picture of the store once, in the order of the names."""
    names = sorted(set(images))
    kind, colon, model = embedder.partition(":")
    # A worker's folder may be another one.
    model = str(Path(model).resolve()) if kind in ("hf", "st") and Path(model).is_dir() else model
    common = {"store": str(Path(store).resolve()), "embedder": kind + colon + model}
    return [{**common, "images": names[start : start + per_part]} for start in range(0, len(names), per_part)]


def embed_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Embed the pictures of a payload; writes vectors, perceptual hashes and small copies as NumPy's file."""
    store, embedder = ImageStore(Path(payload["store"])), make_embedder(payload["embedder"])
    stage = (funnel := Funnel()).stage("embed", "pictures")
    starts = range(0, len(payload["images"]), _BATCH)
    batches = (payload["images"][start : start + _BATCH] for start in starts)
    kept = [one for names in batches for one in _embedded(names, store, embedder, stage)]
    images, vectors, hashes, looks = zip(*kept, strict=True) if kept else ((), np.zeros((0, 1)), (), ())
    with path.open("wb") as file:
        np.savez(
            file, embedder=embedder.name, images=np.array(images, "U32"), vectors=np.array(vectors, np.float32),
            hashes=np.array(hashes, np.uint64), looks=np.array(looks, np.uint8).reshape(-1, LOOK_BYTES),
        )  # fmt: skip
    return funnel


def _embedded(
    names: list[str], store: ImageStore, embedder: Any, stage: Stage
) -> list[tuple[str, np.ndarray, int, np.ndarray]]:
    try:
        pictures = [store.open(name) for name in names]
        rows = unit_rows(embedder, pictures)
        hashes, looks = map(perceptual_hash, pictures), map(look, pictures)
        found = list(zip(names, rows, hashes, looks, strict=True))
    except Exception as error:
        if len(names) > 1 and is_of_item(error):
            # Which of them it was shows when each is alone.
            return [one for name in names for one in _embedded([name], store, embedder, stage)]
        stage.fail(error, {"images": names})
        return []
    refused = [bool(np.isnan(row).any()) for row in rows]
    for name, left_out in zip(names, refused, strict=True):
        stage.drop("refused by the embedder", {"images": [name]}) if left_out else stage.keep()
    return [one for one, left_out in zip(found, refused, strict=True) if not left_out]


@dataclass(frozen=True)
class Embeddings:
    """Of N pictures: names in the store, (N, D) float32 vectors of length 1, (N,) uint64 perceptual hashes, and
    (N, 768) uint8 small copies; ``embedder`` names what made the vectors."""

    embedder: str
    images: list[str]
    vectors: np.ndarray
    hashes: np.ndarray
    looks: np.ndarray

    def apart(self, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the pictures in (M,) rows ``one`` and ``other``: (M,) differing bits of the hashes, and (M,) levels, the
        largest difference of one band of one cell, 0 to 255."""
        levels = self.looks[one].astype(np.int16) - self.looks[other]
        return np.bitwise_count(self.hashes[one] ^ self.hashes[other]), np.abs(levels).max(axis=1, initial=0)


def load_embeddings(paths: Sequence[Path]) -> Embeddings:
    """The vectors of the files of :func:`embed_part`, in order; at least one file."""
    files = [dict(np.load(path)) for path in paths]
    # A part all of whose pictures were refused does not know how long a vector is.
    files = [file for file in files if len(file["images"])] or files[:1]
    names = ("images", "vectors", "hashes", "looks")
    images, *arrays = (np.concatenate([file[name] for file in files]) for name in names)
    return Embeddings(str(files[0]["embedder"]), images.tolist(), *arrays)
