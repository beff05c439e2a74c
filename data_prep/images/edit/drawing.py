"""Simple shapes and letters laid over a picture, antialiased; the picture's own grain stays on them."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep.images.edit.cutout import levels
from data_prep.images.edit.plan import NotEdited, clipped

Box = tuple[float, float, float, float]
# How edges are softened: drawn so many times larger, then made small with that filter. The first is what programs
# that draw charts come close to, the second what easy_vqa does.
RAMPS = {"box4": (4, Image.Resampling.BOX), "bilinear2": (2, Image.Resampling.BILINEAR)}


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


def lay_shape(pixels: np.ndarray, figure: str, box: Box, colour: np.ndarray, ramp: str = "box4") -> np.ndarray:
    """A picture with a shape of an even colour on it.

    Args:
        pixels: (height, width, 3) uint8.
        figure: one of :data:`FIGURES`.
        box: left, top, right, bottom in pixels, fractions allowed.
        colour: (3,).
        ramp: one of :data:`RAMPS`.

    Raises:
        NotEdited: unknown figure or ramp, a box that is not in the picture or without area.
    """
    if figure not in FIGURES or ramp not in RAMPS:
        raise NotEdited("shape that cannot be drawn", f"{figure!r} with edges {ramp!r}")
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise NotEdited("box outside the picture", f"{box}, picture {width} x {height}")
    # Only the part around the box; by whole pixels, so that the enlarged grid falls on the same places.
    x0, y0, x1, y1 = clipped((left - 3, top - 3, right + 3, bottom + 3), pixels.shape)
    ground, size = pixels[y0:y1, x0:x1], (x1 - x0, y1 - y0)
    scale, resampling = RAMPS[ramp]
    large = _large(figure, (left - x0, top - y0, right - x0, bottom - y0), size, scale)
    # Painted first and made small in 8 bits, as programs do: a mixture by coverage is rounded differently.
    picture = Image.fromarray(ground).resize(large.size, Image.Resampling.NEAREST)
    picture.paste(Image.fromarray(levels(colour + _grain(ground))).resize(large.size, Image.Resampling.NEAREST), large)
    touched = np.asarray(large.resize(size, resampling)) > 0
    result = pixels.copy()
    result[y0:y1, x0:x1][touched] = np.asarray(picture.resize(size, resampling))[touched]
    return result


def coverage(figure: str, box: Box, size: tuple[int, int], ramp: str = "box4") -> np.ndarray:
    """How much of each pixel of a canvas (width, height) a figure in a box covers: (height, width), 0 to 1."""
    scale, resampling = RAMPS[ramp]
    return np.asarray(_large(figure, box, size, scale).resize(size, resampling)) / 255


def _large(figure: str, box: Box, size: tuple[int, int], scale: int) -> Image.Image:
    large = Image.new("L", (size[0] * scale, size[1] * scale))
    left, top, right, bottom = (round(side * scale) for side in box)
    FIGURES[figure](ImageDraw.Draw(large), (left, top, max(left, right - 1), max(top, bottom - 1)))
    return large


def _grain(pixels: np.ndarray) -> np.ndarray:
    """What is finer than a median of 5 x 5 and weak; more than that is an edge, not grain."""
    return np.clip(pixels - cv2.medianBlur(np.ascontiguousarray(pixels), 5).astype(np.float64), -16, 16)


def lay_text(pixels: np.ndarray, text: str, box: Box, colour: np.ndarray, font: str | None = None) -> np.ndarray:
    """A picture with a line of text in the middle of a box, as large as fits.

    Args:
        font: file of a TrueType font; None for the one that Pillow brings.

    Raises:
        NotEdited: nothing to draw, or the font has none of it at a size that fits.
    """
    left, top, right, bottom = box
    if not text.strip():
        raise NotEdited("no text to write")
    for points in range(max(4, int((bottom - top) * 1.6)), 3, -1):
        face = ImageFont.load_default(points) if font is None else ImageFont.truetype(font, points)
        ink = face.getbbox(text, anchor="lt")
        if ink[2] - ink[0] <= right - left and ink[3] - ink[1] <= bottom - top:
            break
    else:
        raise NotEdited("text does not fit", f"{len(text)} characters in {right - left:g} x {bottom - top:g} pixels")
    x0, y0, x1, y1 = clipped((left - 3, top - 3, right + 3, bottom + 3), pixels.shape)
    canvas = Image.new("L", (max(0, x1 - x0), max(0, y1 - y0)))
    corner = (left + right - ink[2] - ink[0]) / 2 - x0, (top + bottom - ink[3] - ink[1]) / 2 - y0
    ImageDraw.Draw(canvas).text(corner, text, fill=255, font=face, anchor="lt")
    if canvas.getbbox() is None:
        raise NotEdited("no text to write", "the font draws nothing for it")
    alpha, ground, result = np.asarray(canvas)[..., None] / 255, pixels[y0:y1, x0:x1], pixels.copy()
    result[y0:y1, x0:x1] = levels(ground * (1 - alpha) + (colour + _grain(ground)) * alpha)
    return result
