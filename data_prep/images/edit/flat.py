"""Measures a flat picture: one background colour, a shape of one colour, antialiased at its edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data_prep.images.edit.drawing import Box, coverage
from data_prep.images.edit.plan import NotEdited, Region, region_of
from data_prep.images.edit.questions import COLOURS, SHAPES, Thing

if TYPE_CHECKING:
    from PIL import Image

# A step of 8-bit levels that rounding does not make.
_TOLERANCE = 3
# Nearest palette colour: at most so far off, and the next one at least twice as far.
_COLOUR_DISTANCE = 40.0
# From the shape that it is said to be: share of its area that differs.
_SHAPE_DISTANCE = 0.15
_LEAST_PIXELS = 12
_MOST_SHAPES = 8


@dataclass(frozen=True)
class FlatShape:
    """The one shape of a picture.

    Attributes:
        thing: its shape and colour by name.
        rgb: its colour as measured.
        region: smallest one around every pixel it touches.
        box: left, top, right, bottom in pixels, fractions included.
        mask: (height, width) of the picture: the pixels it covers by more than half.
    """

    thing: Thing
    rgb: tuple[int, int, int]
    region: Region
    box: Box
    mask: np.ndarray


def measure(image: Image.Image) -> FlatShape:
    """Find the shape of an RGB picture.

    Raises:
        NotEdited: it is not flat, there are none or several, or its shape or colour is none of those known.
    """
    pixels = np.asarray(image).astype(np.int32)
    background, share = _most_frequent(pixels.reshape(-1, 3))
    if share < 0.25:
        raise NotEdited("not a flat picture", f"the most frequent colour has {share:.0%} of the pixels")
    differs = np.abs(pixels - background).max(axis=2) > _TOLERANCE
    count = cv2.connectedComponents(differs.astype(np.uint8))[0] - 1
    if count > _MOST_SHAPES:
        raise NotEdited("not a flat picture", f"{count} separate spots")
    if count != 1:
        raise NotEdited("not one shape", f"{count} shapes")
    if differs.sum() < _LEAST_PIXELS:
        raise NotEdited("shape not known", f"a spot of {differs.sum()} pixels")
    core = _core(pixels[differs], background)
    # How far a pixel is from the background towards the core, in the three channels together.
    towards = (core - background).astype(np.float64)
    alpha = np.clip(((pixels - background) @ towards) / (towards @ towards), 0.0, 1.0) * differs
    region, rgb = region_of(differs), tuple(int(value) for value in core)
    (left, right), (top, bottom) = _ends(alpha, 0), _ends(alpha, 1)
    box = left, top, right, bottom
    shape, colour = _shape_name(alpha, box), _colour_name(core)
    if shape is None or colour is None:
        raise NotEdited("shape not known" if shape is None else "colour not known", f"at {region}, colour {rgb}")
    return FlatShape(Thing(shape, colour), rgb, region, box, alpha > 0.5)


def _core(inside: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The colour of the fully covered pixels: of the frequent ones the farthest from the background."""
    colours, counts = np.unique(inside, axis=0, return_counts=True)
    frequent = colours[counts >= 0.1 * len(inside)]
    if not len(frequent):
        raise NotEdited("not a flat picture", f"a spot of {len(inside)} pixels in {len(colours)} colours")
    return frequent[np.abs(frequent - background).sum(axis=1).argmax()]


def _ends(alpha: np.ndarray, axis: int) -> tuple[float, float]:
    """First and last place along the other axis: as far apart as is covered at most, around the middle of it all."""
    profile = alpha.max(axis=axis)
    (found,) = np.nonzero(profile)
    first, last = found[0], found[-1]
    middle, half = (first + last + 1 + profile[last] - profile[first]) / 2, alpha.sum(axis=1 - axis).max() / 2
    return float(middle - half), float(middle + half)


def _shape_name(alpha: np.ndarray, box: Box) -> str | None:
    """The one whose drawing in that box is most like it; None if none is."""
    (left, top, right, bottom), (height, width) = box, alpha.shape
    # No row of a triangle is as wide as its base, once that is softened, and no column as tall.
    wider = (max(0, left - 0.5), max(0, top - 0.25), min(width, right + 0.5), bottom)
    size = (width, height)
    drawn = {name: coverage(name, wider if name == "triangle" else box, size, "bilinear2") for name in SHAPES}
    apart = {name: np.abs(alpha - cover).sum() / alpha.sum() for name, cover in drawn.items()}
    name = min(SHAPES, key=apart.__getitem__)
    oval = name == "circle" and abs((bottom - top) - (right - left)) > max(1, 0.08 * (right - left))
    return name if apart[name] <= _SHAPE_DISTANCE and not oval else None


def _colour_name(rgb: np.ndarray) -> str | None:
    distances = sorted((float(np.linalg.norm(rgb - np.array(known))), name) for name, known in COLOURS.items())
    near, name = distances[0]
    return name if near <= _COLOUR_DISTANCE and distances[1][0] >= 2 * near else None


def _most_frequent(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    return values[counts.argmax()], counts.max() / len(pixels)
