"""A picture's colours and structure as a vector: no weights, no download, the same on every machine.

Four views of a small copy of the picture: where which colour is (low frequencies of brightness and of two colour
differences), how much of each hue and grey there is in each quarter, and which way edges run in each cell of a grid.
The part that all pictures share is taken out of each view, so that unrelated pictures score near 0 and the cosine
says something: without that, any two photographs, or any two charts on white, score above 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIDE = 64
# Low frequencies kept a side: brightness, colour differences.
_BRIGHT, _COLOUR = 8, 6
_HUES, _GREYS, _QUARTERS = 12, 4, 2
_DIRECTIONS, _CELLS = 8, 4
# A view as faint as this (in units of its own) says nothing about a picture, and is not blown up to full length:
# brightness, colour differences, hues and greys, edges.
_FAINT = (2.0, 2.0, 0.02, 0.5)
_PLACES = np.indices((_SIDE, _SIDE)).reshape(2, -1)


class Descriptor:
    """The built-in embedder; see the module."""

    name = "descriptor-2"

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, 328) float64; pictures of mode RGB and any size."""
        return np.stack([_described(image) for image in images])


def _described(image: Image.Image) -> np.ndarray:
    from scipy.fft import dctn
    from scipy.ndimage import gaussian_filter

    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=None)
    bands = np.asarray(small.convert("YCbCr"), dtype=np.float64) - 128
    hue, saturation, value = np.asarray(small.convert("HSV"), dtype=np.float64).reshape(-1, 3).T / 256
    waves = dctn(bands, axes=(0, 1), norm="ortho") / _SIDE
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
    inside = ((0, _SIDE), (0, _SIDE), (0, 1))
    summed, _ = np.histogramdd((*_PLACES, kind), (cells, cells, kinds), inside, weights=weight)
    return summed.ravel() * (cells / _SIDE) ** 2


def _apart(shares: np.ndarray) -> np.ndarray:
    """Roots, less their mean, which all pictures share."""
    roots = np.sqrt(shares)
    return roots - roots.mean()
