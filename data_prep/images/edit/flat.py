"""Measures a flat picture: one background colour, a few shapes of one colour each, antialiased at their edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_prep.images.edit.plan import NotEdited, Region, region_of
from data_prep.images.edit.questions import COLOURS, Thing

if TYPE_CHECKING:
    from PIL import Image

# A step of 8-bit levels that rounding does not make.
_TOLERANCE = 3
# Nearest palette colour: at most so far off, and the next one at least twice as far.
_COLOUR_DISTANCE = 40.0
_LEAST_PIXELS = 12
_MOST_SHAPES = 8


@dataclass(frozen=True)
class FlatShape:
    """One shape.

    Attributes:
        thing: its shape and colour by name.
        rgb: its colour as measured.
        region: smallest one around every pixel it touches.
        width, height: in pixels, fractions included.
        centre: column and row of the middle of its box, in pixels from the left and top border.
        alpha: (height, width) of the picture: how much of a pixel it covers, 0 to 1.
    """

    thing: Thing
    rgb: tuple[int, int, int]
    region: Region
    width: float
    height: float
    centre: tuple[float, float]
    alpha: np.ndarray


@dataclass(frozen=True)
class FlatPicture:
    """Background and shapes, from left to right."""

    background: tuple[int, int, int]
    shapes: tuple[FlatShape, ...]

    @property
    def scene(self) -> list[Thing]:
        return [shape.thing for shape in self.shapes]


def measure(image: Image.Image) -> FlatPicture:
    """Find the shapes of an RGB picture.

    Raises:
        NotEdited: it is not flat, or a shape or colour in it is none of those known.
    """
    from scipy import ndimage

    pixels = np.asarray(image).astype(np.int32)
    background, share = _most_frequent(pixels.reshape(-1, 3))
    if share < 0.25:
        raise NotEdited("not a flat picture", f"the most frequent colour has {share:.0%} of the pixels")
    differs = np.abs(pixels - background).max(axis=2) > _TOLERANCE
    labels, count = ndimage.label(differs, structure=np.ones((3, 3)))
    if count > _MOST_SHAPES:
        raise NotEdited("not a flat picture", f"{count} separate spots")
    shapes = [_shape(pixels, background, labels == label) for label in range(1, count + 1)]
    return FlatPicture(_rgb(background), tuple(sorted(shapes, key=lambda shape: shape.region)))


def _shape(pixels: np.ndarray, background: np.ndarray, where: np.ndarray) -> FlatShape:
    inside = pixels[where]
    if len(inside) < _LEAST_PIXELS:
        raise NotEdited("shape not known", f"a spot of {len(inside)} pixels")
    core = _core(inside, background)
    # How far a pixel is from the background towards the core, in the three channels together.
    towards = (core - background).astype(np.float64)
    alpha = np.clip(((pixels - background) @ towards) / (towards @ towards), 0.0, 1.0) * where
    left, top, right, bottom = region = region_of(where)
    inner = alpha[top:bottom, left:right]
    shape = _shape_name(inner)
    colour = _colour_name(core)
    if shape is None or colour is None:
        raise NotEdited("shape not known" if shape is None else "colour not known", f"at {region}, colour {_rgb(core)}")
    return FlatShape(
        Thing(shape, colour),
        _rgb(core),
        region,
        width=float(inner.sum(axis=1).max()),
        height=float(inner.sum(axis=0).max()),
        centre=(left + _middle(inner.max(axis=0)), top + _middle(inner.max(axis=1))),
        alpha=alpha,
    )


def _core(inside: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The colour of the fully covered pixels: of the frequent ones the farthest from the background."""
    colours, counts = np.unique(inside, axis=0, return_counts=True)
    frequent = colours[counts >= 0.1 * len(inside)]
    if not len(frequent):
        raise NotEdited("not a flat picture", f"a spot of {len(inside)} pixels in {len(colours)} colours")
    return frequent[np.abs(frequent - background).sum(axis=1).argmax()]


def _shape_name(alpha: np.ndarray) -> str | None:
    """By the widths of its rows and by what covers the corners of its solid part; None if it is none of the three."""
    solid = alpha >= 0.6
    if not solid.any():
        return None
    left, top, right, bottom = region_of(solid)
    alpha, solid = alpha[top:bottom, left:right], solid[top:bottom, left:right]
    height, width = alpha.shape
    third = max(1, round(0.3 * height))
    above, below = alpha[:third].sum(), alpha[-third:].sum()
    # The lowest row may be covered in part only; its width is the same.
    rows = alpha.sum(axis=1) / alpha.max(axis=1)
    if above < 0.5 * below:
        # A triangle grows evenly; a shape that only narrows at the top is another one.
        even = np.linspace(rows[0], rows[-1], height)
        return "triangle" if np.abs(rows - even).max() <= max(1.5, 0.12 * width) else None
    if below < 0.5 * above:
        return None
    down, across = max(1, round(0.1 * height)), max(1, round(0.1 * width))
    corners = [alpha[ys, xs].mean() for ys in (slice(0, down), slice(-down, None)) for xs in _ends(across)]
    if min(corners) > 0.6:
        return "rectangle"
    round_enough = abs(height - width) <= max(1, 0.08 * width) and abs(solid.mean() - np.pi / 4) < 0.15
    return "circle" if max(corners) < 0.4 and round_enough else None


def _ends(count: int) -> tuple[slice, slice]:
    return slice(0, count), slice(-count, None)


def _middle(profile: np.ndarray) -> float:
    """The middle of a profile of coverage, its partly covered ends counted as what they cover."""
    return (len(profile) + profile[-1] - profile[0]) / 2 if len(profile) > 1 else 0.5


def _colour_name(rgb: np.ndarray) -> str | None:
    distances = sorted((float(np.linalg.norm(rgb - np.array(known))), name) for name, known in COLOURS.items())
    near, name = distances[0]
    return name if near <= _COLOUR_DISTANCE and distances[1][0] >= 2 * near else None


def _most_frequent(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    packed = (pixels[:, 0] << 16) | (pixels[:, 1] << 8) | pixels[:, 2]
    values, counts = np.unique(packed, return_counts=True)
    value = int(values[counts.argmax()])
    return np.array([value >> 16, value >> 8 & 255, value & 255]), counts.max() / len(packed)


def _rgb(values: np.ndarray) -> tuple[int, int, int]:
    return tuple(int(value) for value in values)
