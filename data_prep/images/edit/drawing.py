"""Simple shapes and letters laid over a picture, antialiased; the picture's own grain stays on them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep.images.edit.cutout import grain_of, levels
from data_prep.images.edit.plan import Box, NotEdited, clipped

# Drawn so many times larger and made small bilinearly, as easy_vqa does, so that edges are softened alike.
_SCALE = 2


def _ellipse(canvas: ImageDraw.ImageDraw, box: Box) -> None:
    """A polygon of 360 whole points, as Pillow once drew it for easy_vqa; today's is a little smaller, which tells."""
    wide, tall = box[2] - box[0], box[3] - box[1]
    # Halves are rounded towards the middle.
    x, across = (box[0] + box[2]) // 2, wide / 2 - 0.01 * (wide % 2)
    y, down = (box[1] + box[3]) // 2, tall / 2 - 0.01 * (tall % 2)
    turns = [math.radians(degree) for degree in range(360)]
    points = [(x + round(math.cos(turn) * across), y + round(math.sin(turn) * down)) for turn in turns]
    canvas.polygon(points, fill=255, outline=255)


# From a canvas and the first and last column and row.
FIGURES: dict[str, Callable[[ImageDraw.ImageDraw, Box], None]] = {
    "circle": _ellipse,
    "ellipse": _ellipse,
    "rectangle": lambda canvas, box: canvas.rectangle(box, fill=255),
    "triangle": lambda canvas, box: canvas.polygon(
        [(box[0], box[3]), (box[2], box[3]), ((box[0] + box[2]) / 2, box[1])], fill=255
    ),
}


def lay_shape(pixels: np.ndarray, figure: str, box: Box, colour: np.ndarray) -> np.ndarray:
    """A picture (height, width, 3) uint8 with one of :data:`FIGURES` of an even colour on it. Raises NotEdited:
    unknown figure, a box that is not in the picture or without area."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    if figure not in FIGURES:
        raise NotEdited("shape that cannot be drawn", repr(figure))
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise NotEdited("box outside the picture", f"{box}, picture {width} x {height}")
    # Only the part around the box; by whole pixels, so that the enlarged grid falls on the same places.
    x0, y0, x1, y1 = clipped(box, pixels.shape, 3)
    ground, size = pixels[y0:y1, x0:x1], (x1 - x0, y1 - y0)
    large = _large(figure, (left - x0, top - y0, right - x0, bottom - y0), size)
    # Painted first and made small in 8 bits, as programs do: a mixture by coverage is rounded differently.
    picture = Image.fromarray(ground).resize(large.size, Image.Resampling.NEAREST)
    painted = levels(colour + grain_of(ground.astype(np.float32)))
    picture.paste(Image.fromarray(painted).resize(large.size, Image.Resampling.NEAREST), large)
    touched = np.asarray(large.resize(size, Image.Resampling.BILINEAR)) > 0
    result = pixels.copy()
    result[y0:y1, x0:x1][touched] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))[touched]
    return result


def coverage(figure: str, box: Box, size: tuple[int, int]) -> np.ndarray:
    """How much of each pixel of a canvas (width, height) a figure in a box covers: (height, width), 0 to 1."""
    return np.asarray(_large(figure, box, size).resize(size, Image.Resampling.BILINEAR)) / 255


def _large(figure: str, box: Box, size: tuple[int, int]) -> Image.Image:
    large = Image.new("L", (size[0] * _SCALE, size[1] * _SCALE))
    left, top, right, bottom = (round(side * _SCALE) for side in box)
    FIGURES[figure](ImageDraw.Draw(large), (left, top, max(left, right - 1), max(top, bottom - 1)))
    return large


def lay_text(pixels: np.ndarray, text: str, box: Box, colour: np.ndarray) -> np.ndarray:
    """A picture with a line of text, in the font that Pillow brings, in the middle of a box, as large as fits.
    Raises NotEdited: nothing to draw, or no size that fits."""
    left, top, right, bottom = box
    for points in range(max(4, int((bottom - top) * 1.6)), 3, -1):
        face = ImageFont.load_default(points)
        ink = face.getbbox(text, anchor="lt")
        if ink[2] - ink[0] <= right - left and ink[3] - ink[1] <= bottom - top:
            break
    else:
        raise NotEdited("text does not fit", f"{len(text)} characters in {right - left:g} x {bottom - top:g} pixels")
    x0, y0, x1, y1 = clipped(box, pixels.shape, 3)
    canvas = Image.new("L", (max(0, x1 - x0), max(0, y1 - y0)))
    corner = (left + right - ink[2] - ink[0]) / 2 - x0, (top + bottom - ink[3] - ink[1]) / 2 - y0
    ImageDraw.Draw(canvas).text(corner, text, fill=255, font=face, anchor="lt")
    if canvas.getbbox() is None:
        raise NotEdited("no text to write", f"{text!r}: the font draws nothing for it")
    alpha, ground, result = np.asarray(canvas)[..., None] / 255, pixels[y0:y1, x0:x1], pixels.copy()
    inked = colour + grain_of(ground.astype(np.float32))
    result[y0:y1, x0:x1] = levels(ground * (1 - alpha) + inked * alpha)
    return result
