"""Simple shapes and letters laid over a picture, antialiased."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep.images.edit.easy_vqa_grid import raster
from data_prep.images.edit.plan import NotEdited, clipped

Box = tuple[float, float, float, float]
# How edges are softened: drawn so many times larger, then made small with that filter. The first is what programs
# that draw charts come close to, the second what easy_vqa does.
RAMPS = {"box4": (4, Image.Resampling.BOX), "bilinear2": (2, Image.Resampling.BILINEAR)}


def _ellipse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x**2 + y**2 <= 1


def _rectangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.abs(x) <= 1) & (np.abs(y) <= 1)


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.abs(y) <= 1) & (np.abs(x) <= (y + 1) / 2)


# Which points of a box are inside; its sides are at -1 and 1, y grows downwards.
FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _ellipse,
    "ellipse": _ellipse,
    "rectangle": _rectangle,
    "triangle": _triangle,
}


def lay_shape(
    pixels: np.ndarray, figure: str, box: Box, colour: np.ndarray, ramp: str = "box4", grain: float = 16.0
) -> np.ndarray:
    """A picture with a shape of an even colour on it.

    The picture's own grain stays on the shape, so that it is as noisy as its surroundings.

    Args:
        pixels: (height, width, 3) float, 0 to 255.
        figure: one of :data:`FIGURES`.
        box: left, top, right, bottom in pixels, fractions allowed.
        colour: (3,).
        ramp: one of :data:`RAMPS`.
        grain: strongest grain in levels; more than that is an edge, not grain.

    Raises:
        NotEdited: unknown figure or ramp, a box that is not in the picture or without area.
    """
    if figure not in FIGURES or ramp not in RAMPS:
        raise NotEdited("shape that cannot be drawn", f"{figure!r} with edges {ramp!r}")
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise NotEdited("box outside the picture", f"{box}, picture {width} x {height}")
    scale, resampling = RAMPS[ramp]
    # Only the part around the box; by whole pixels, so that the enlarged grid falls on the same places.
    x0, y0, x1, y1 = clipped((left - 3, top - 3, right + 3, bottom + 3), pixels.shape)
    ground = pixels[y0:y1, x0:x1]
    at = ((left - x0) * scale, (top - y0) * scale, (right - x0) * scale, (bottom - y0) * scale)
    inside = _inside(figure, at, ((y1 - y0) * scale, (x1 - x0) * scale), ramp)
    painted = _enlarged(colour + np.clip(_grain(ground), -grain, grain), scale)
    large = np.where(inside[..., None], painted, _enlarged(ground, scale))
    small = Image.fromarray(_levels(large)).resize((x1 - x0, y1 - y0), resampling)
    touched = np.asarray(Image.fromarray(inside.astype(np.float32)).resize(small.size, resampling)) > 1e-6
    result = pixels.copy()
    result[y0:y1, x0:x1][touched] = np.asarray(small, dtype=np.float64)[touched]
    return result


def _inside(figure: str, box: Box, shape: tuple[int, int], ramp: str) -> np.ndarray:
    left, top, right, bottom = box
    if ramp == "bilinear2" and all(float(side).is_integer() for side in box):
        known = raster(figure, int(right - left), int(bottom - top))
        if known is not None:
            found = np.zeros(shape, dtype=bool)
            found[int(top) : int(bottom), int(left) : int(right)] = known
            return found
    x = (np.arange(shape[1]) + 0.5 - (left + right) / 2) * 2 / (right - left)
    y = (np.arange(shape[0]) + 0.5 - (top + bottom) / 2) * 2 / (bottom - top)
    return FIGURES[figure](x[None, :], y[:, None])


def _grain(pixels: np.ndarray) -> np.ndarray:
    """What is finer than a 5x5 median."""
    from scipy import ndimage

    if np.ptp(pixels.reshape(-1, 3), axis=0).max() == 0:
        return np.zeros_like(pixels)
    return pixels - ndimage.median_filter(pixels, size=(5, 5, 1), mode="nearest")


def _enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def _levels(pixels: np.ndarray) -> np.ndarray:
    """Floats as 8-bit levels."""
    return np.clip(np.floor(pixels + 0.5), 0, 255).astype(np.uint8)


def lay_text(pixels: np.ndarray, text: str, box: Box, colour: np.ndarray, font: str | None = None) -> np.ndarray:
    """A picture with a line of text on it, see :func:`text_alpha`; the picture's grain stays."""
    alpha = text_alpha(text, box, (pixels.shape[1], pixels.shape[0]), font)[..., None]
    return pixels * (1 - alpha) + (colour + np.clip(_grain(pixels), -16.0, 16.0)) * alpha


def text_alpha(text: str, box: Box, size: tuple[int, int], font: str | None = None) -> np.ndarray:
    """Coverage of a line of text, as large as fits the box, in its middle.

    Args:
        font: file of a TrueType font; None for the one that Pillow brings.

    Returns:
        (height, width) float64, 0 to 1.

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
    canvas = Image.new("L", size)
    corner = (left + right - ink[2] - ink[0]) / 2, (top + bottom - ink[3] - ink[1]) / 2
    ImageDraw.Draw(canvas).text(corner, text, fill=255, font=face, anchor="lt")
    alpha = np.asarray(canvas, dtype=np.float64) / 255
    if not alpha.any():
        raise NotEdited("no text to write", "the font draws nothing for it")
    return alpha
