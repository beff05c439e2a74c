"""What a model that redraws the whole picture gives, brought back to an edit of one region of the original."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from data_prep.images.edit.cutout import levels
from data_prep.images.edit.plan import NotEdited, Region, region_of

# Levels by which a model's redrawing differs without meaning to.
_REDRAWN = 24.0
# Outside of the region: mean shift of a channel, ratio of contrast, share of detail that is left.
_SHIFT, _SPREAD, _DETAIL = 6.0, 1.2, 0.5


@dataclass(frozen=True)
class Frame:
    """A canvas of another shape with the whole picture in it, for models that know a few sizes only.

    Attributes:
        size: of the canvas.
        box: where the picture lies on it.
    """

    size: tuple[int, int]
    box: Region

    @classmethod
    def around(cls, size: tuple[int, int], allowed: list[tuple[int, int]]) -> Frame:
        """The allowed canvas that a picture of ``size`` fills best."""

        def scale(canvas: tuple[int, int]) -> float:
            return min(canvas[0] / size[0], canvas[1] / size[1])

        def filled(canvas: tuple[int, int]) -> float:
            return scale(canvas) ** 2 * size[0] * size[1] / (canvas[0] * canvas[1])

        canvas = max(allowed, key=filled)
        wide, tall = (max(1, min(round(side * scale(canvas)), most)) for side, most in zip(size, canvas, strict=True))
        left, top = (canvas[0] - wide) // 2, (canvas[1] - tall) // 2
        return cls(canvas, (left, top, left + wide, top + tall))

    def put(self, image: Image.Image) -> Image.Image:
        """The picture on the canvas; its border goes on to the canvas's, so that no bars tempt a model."""
        left, top, right, bottom = self.box
        inner = np.asarray(image.resize((right - left, bottom - top), Image.Resampling.LANCZOS))
        beyond = top, self.size[1] - bottom, left, self.size[0] - right
        return Image.fromarray(cv2.copyMakeBorder(inner, *beyond, cv2.BORDER_REPLICATE))

    def take(self, canvas: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The picture back from a canvas of any scale."""
        across, down = canvas.width / self.size[0], canvas.height / self.size[1]
        left, top, right, bottom = self.box
        box = (left * across, top * down, right * across, bottom * down)
        return canvas.resize(size, Image.Resampling.LANCZOS, box=box)


def same_shape(answer: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether a picture is a larger or smaller one of the same shape (3 % or one pixel off at most)."""
    scale = answer[0] / wanted[0]
    return abs(answer[1] - wanted[1] * scale) <= max(1.0, 0.03 * answer[1])


def changed_region(original: Image.Image, edited: Image.Image) -> Region:
    """The smallest region around what changed visibly, a little grown.

    Raises:
        NotEdited: nothing did.
    """
    change = np.abs(np.asarray(edited, dtype=np.int16) - np.asarray(original, dtype=np.int16)).max(axis=2)
    found = (change > _REDRAWN).astype(np.uint8)
    # A model moves edges by a fraction of a pixel everywhere: thin lines of change are not meant.
    broad = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), dtype=np.uint8))
    if not found.any():
        raise NotEdited("edit without effect", "nothing changed visibly")
    return region_of(broad if broad.any() else found, max(4, round(0.02 * max(original.size))))


def refuse_restyled(original: Image.Image, answer: Image.Image, region: Region) -> None:
    """Look at a model's whole answer, before only its region is used: what it did outside it did inside, too.

    Raises:
        NotEdited: another light or contrast everywhere, or much less detail.
    """
    outside = np.ones((original.height, original.width), dtype=bool)
    left, top, right, bottom = region
    outside[top:bottom, left:right] = False
    if outside.sum() < 64:
        return
    before, after = (np.asarray(image, dtype=np.float32) for image in (original, answer))
    # On half the scale, where the smallest details, that every model redraws, do not count.
    details = [float(_detail(pixels)[outside[::2, ::2]].mean()) + 0.1 for pixels in (before, after)]
    if details[1] < _DETAIL * details[0]:
        raise NotEdited("whole picture blurred", f"detail times {details[1] / details[0]:.2f}")
    shift = float(np.abs((after - before)[outside].mean(axis=0)).max())
    spread = (float(after[outside].std()) + 1) / (float(before[outside].std()) + 1)
    if shift > _SHIFT or not 1 / _SPREAD <= spread <= _SPREAD:
        raise NotEdited("whole picture restyled", f"levels shifted by {shift:.1f}, contrast times {spread:.2f}")


def _detail(pixels: np.ndarray) -> np.ndarray:
    light = np.ascontiguousarray(cv2.blur(pixels.mean(axis=2), (2, 2))[::2, ::2])
    return np.abs(light - cv2.blur(light, (3, 3)))


def paste_region(original: Image.Image, edited: Image.Image, region: Region) -> Image.Image:
    """The original with the region of the edited picture, faded in from the region's border.

    Outside of the region the result is the original, pixel for pixel.
    """
    left, top, right, bottom = region
    feather = max(2, round(0.08 * min(right - left, bottom - top)))
    inside = np.zeros((original.height, original.width), dtype=np.uint8)
    inside[top:bottom, left:right] = 1
    # A side that is the picture's own border has nothing outside to be far from: it needs no fading.
    steps = cv2.distanceTransform(inside, cv2.DIST_C, 3)[top:bottom, left:right, None] - 1
    share = np.minimum(1.0, steps / feather) if not inside.all() else 1.0
    result = np.array(original)
    part = result[top:bottom, left:right]
    part[:] = levels(part * (1.0 - share) + np.asarray(edited)[top:bottom, left:right] * share)
    return Image.fromarray(result)
