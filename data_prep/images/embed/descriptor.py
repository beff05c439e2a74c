"""A picture's colours and structure as a vector: no weights, no download, the same on every machine.

Four views of a small copy of the picture: where which colour is (low frequencies of brightness and of two colour
differences), how much of each hue and grey there is in each quarter, and which way edges run in each cell of a grid.
The part that all pictures share is taken out of each view, so that unrelated pictures score near 0 and the cosine
says something: without that, any two photographs, or any two charts on white, score above 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

# Pictures at a time: what they need fits into a core's cache.
_BATCH = 32
_SIDE = 64
_SMALL = 32
# Low frequencies kept a side: brightness, colour differences.
_BRIGHT, _COLOUR = 8, 6
_HUES, _GREYS, _QUARTERS = 12, 4, 2
_DIRECTIONS, _CELLS = 8, 4
# Pixels a side that are counted together before they are shared out among cells.
_FINE = 4
# Shares of brightness layout, colour layout, colour histogram and edges in the squared length.
_SHARES = (0.25, 0.25, 0.25, 0.25)
# A view as faint as this (in units of its own) says nothing about a picture, and is not blown up to full length.
_FAINT = (2.0, 2.0, 0.02, 2.0)


class Descriptor:
    """The built-in embedder; see the module."""

    name = "descriptor-1"
    dimension: int | None = _BRIGHT**2 + 2 * _COLOUR**2 + _QUARTERS**2 * (_HUES + _GREYS) + _CELLS**2 * _DIRECTIONS

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, 328) float32 rows of length 1; pictures of mode RGB and any size."""
        batches = [_described(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        return np.concatenate([np.zeros((0, self.dimension), dtype=np.float32), *batches])


def _described(images: Sequence[Image.Image]) -> np.ndarray:
    small = [image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=None) for image in images]
    bands = np.stack([np.asarray(image.convert("YCbCr"), dtype=np.float64) for image in small])
    hsv = np.stack([np.asarray(image.convert("HSV")) for image in small])
    halved = bands.reshape(len(small), _SMALL, 2, _SMALL, 2, 3).mean(axis=(2, 4))
    views = (_layout(halved[..., :1], _BRIGHT), _layout(halved[..., 1:], _COLOUR), _colours(hsv), _edges(bands))
    parts = [
        np.sqrt(share) * view / (np.sqrt((view**2).sum(axis=1, keepdims=True)) + faint)
        for view, share, faint in zip(views, _SHARES, _FAINT, strict=True)
    ]
    # A constant keeps a picture without any feature from having no direction.
    whole = np.concatenate([*parts, np.full((len(small), 1), 1e-3)], axis=1)
    return (whole / np.sqrt((whole**2).sum(axis=1, keepdims=True))).astype(np.float32)


@lru_cache
def _waves(count: int) -> np.ndarray:
    """(count, 32) orthonormal cosines of rising frequency."""
    at = (np.arange(_SMALL) + 0.5) * np.pi / _SMALL
    waves = np.cos(np.arange(count)[:, None] * at) * np.sqrt(2 / _SMALL)
    waves[0] /= np.sqrt(2)
    return waves


def _layout(bands: np.ndarray, count: int) -> np.ndarray:
    """Low frequencies of (N, 32, 32, C) bands; the mean of brightness is no feature, that of a colour is."""
    waves = _waves(count)
    found = np.einsum("ux,nxyc->nuyc", waves, bands)
    found = np.einsum("vy,nuyc->ncuv", waves, found) / _SMALL
    if bands.shape[-1] > 1:
        found[:, :, 0, 0] -= 128.0
        return found.reshape(len(bands), -1)
    return found.reshape(len(bands), -1)[:, 1:]


def _colours(hsv: np.ndarray) -> np.ndarray:
    """Square roots of the shares of hues and greys around each quarter's middle, less their mean."""
    hue, saturation, value = (hsv[..., band].astype(np.int64) for band in range(3))
    # In integers, so that sums do not depend on their order. A pixel counts for its hue as far as it is colourful.
    strength = saturation * value
    place = hue * _HUES
    low, rest = place // 256, place % 256
    grey = _HUES + np.minimum(value * _GREYS // 256, _GREYS - 1)
    counted = [
        (low, strength * (256 - rest)),
        ((low + 1) % _HUES, strength * rest),
        (grey, (255 * 255 - strength) * 256),
    ]
    shares = _around(counted, _HUES + _GREYS, _QUARTERS) / (255 * 255 * 256)
    roots = np.sqrt(shares / (_SIDE / _QUARTERS) ** 2)
    return roots - roots.mean(axis=1, keepdims=True)


def _edges(bands: np.ndarray) -> np.ndarray:
    """Strength of edges by direction around each cell's middle, its root, less their mean."""
    across, down = np.zeros(bands.shape), np.zeros(bands.shape)
    across[:, :, 1:-1] = bands[:, :, 2:] - bands[:, :, :-2]
    down[:, 1:-1] = bands[:, 2:] - bands[:, :-2]
    # Brightness and colour together: a red shape on an equally bright ground has edges too.
    xx, yy, xy = (np.einsum("nijc,nijc->nij", *two) for two in ((across, across), (down, down), (across, down)))
    strength = np.sqrt(xx + yy)
    place = np.mod(np.arctan2(2 * xy, xx - yy) / (2 * np.pi), 1.0) * _DIRECTIONS
    low = place.astype(np.int64)
    rest = place - low
    counted = [(low % _DIRECTIONS, strength * (1 - rest)), ((low + 1) % _DIRECTIONS, strength * rest)]
    roots = np.sqrt(_around(counted, _DIRECTIONS, _CELLS) * (_CELLS / _SIDE))
    return roots - roots.mean(axis=1, keepdims=True)


def _around(counted: list[tuple[np.ndarray, np.ndarray]], kinds: int, cells: int) -> np.ndarray:
    """(N, cells * cells * kinds) weights by kind around the middles of a grid of cells.

    A pixel between two middles counts for both by its nearness, so that a small shift is a small change.

    Args:
        counted: (N, 64, 64) kinds and weights.
    """
    count, fine = len(counted[0][0]), _SIDE // _FINE
    at = np.arange(_SIDE) // _FINE
    base = (np.arange(count)[:, None, None] * fine**2 + at[:, None] * fine + at) * kinds
    held = sum(
        np.bincount((base + kind).ravel(), weights=weight.ravel(), minlength=count * fine**2 * kinds)
        for kind, weight in counted
    )
    held = held.reshape(count, fine, fine, kinds)
    place = (np.arange(fine) + 0.5) * cells / fine - 0.5
    near = np.maximum(0, 1 - np.abs(np.clip(place, 0, cells - 1) - np.arange(cells)[:, None]))
    return np.einsum("vx,nuxk->nuvk", near, np.einsum("uy,nyxk->nuxk", near, held)).reshape(count, -1)
