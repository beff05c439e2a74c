"""What a model that redraws the whole picture gives, brought back to an edit of one region of the original."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from data_prep.images.edit.check import check_edit
from data_prep.images.edit.cutout import levels
from data_prep.images.edit.plan import EditPlan, NotEdited, Region, region_of

# Levels by which a model's redrawing differs without meaning to.
_REDRAWN = 24.0
# Outside of the region: measures of the check, but for what a model does without meaning to.
_CAST, _SPREAD, _SHARPNESS = 6.0, 1.2, 0.25
_INSTRUCTIONS = {
    "recolour": "Change the colour of the {}.",
    "move": "Move the {} to another place.",
    "erase": "Remove the {} and fill its place with what is around it.",
    "add": "Add {}.",
    "replace": "Replace the {}.",
    "reletter": "Change the text of the {}.",
}
_CARE = (
    "Change nothing else: keep the framing, the size, the light, the sharpness and the style of the picture, and every "
    "other detail, exactly as they are. The change must look as if it had always been there."
)


def instruction_of(plan: EditPlan) -> str:
    """The text that a generative editor gets. Raises NotEdited if the plan does not say what to do."""
    text, target = plan.instruction.strip(), plan.target.strip()
    if not text and target and plan.operation in _INSTRUCTIONS:
        text = _INSTRUCTIONS[plan.operation].format(target)
    if not text:
        raise NotEdited("no instruction", plan.operation)
    if plan.region is not None:
        left, top, right, bottom = plan.region
        text += f" It lies between the pixels ({left}, {top}) and ({right}, {bottom})."
    return f"{text} {_CARE}"


@dataclass(frozen=True)
class Frame:
    """A canvas with the whole picture in its ``box``, for models that know a few sizes only."""

    size: tuple[int, int]
    box: Region

    @classmethod
    def around(cls, size: tuple[int, int], allowed: list[tuple[int, int]]) -> Frame:
        """The canvas that a picture of ``size`` fills best, of the allowed ones; its own size if all are."""
        if not allowed:
            return cls(size, (0, 0, *size))
        scales = {canvas: min(canvas[0] / size[0], canvas[1] / size[1]) for canvas in allowed}
        canvas = max(allowed, key=lambda one: scales[one] ** 2 / (one[0] * one[1]))
        wide, tall = (max(1, min(round(side * scales[canvas]), most)) for side, most in zip(size, canvas, strict=True))
        left, top = (canvas[0] - wide) // 2, (canvas[1] - tall) // 2
        return cls(canvas, (left, top, left + wide, top + tall))

    def put(self, image: Image.Image) -> Image.Image:
        """The picture on the canvas; its border goes on to the canvas's, so that no bars tempt a model."""
        left, top, right, bottom = self.box
        inner = np.asarray(image.resize((right - left, bottom - top), Image.Resampling.LANCZOS))
        beyond = top, self.size[1] - bottom, left, self.size[0] - right
        return Image.fromarray(cv2.copyMakeBorder(inner, *beyond, cv2.BORDER_REPLICATE))

    def take(self, canvas: Image.Image, size: tuple[int, int]) -> Image.Image | None:
        """The picture back from a canvas of any scale; None if it has another shape (beyond 3 % or a pixel)."""
        across, down = canvas.width / self.size[0], canvas.height / self.size[1]
        if abs(canvas.height - self.size[1] * across) > max(1.0, 0.03 * canvas.height):
            return None
        left, top, right, bottom = self.box
        box = (left * across, top * down, right * across, bottom * down)
        return canvas if canvas.size == size else canvas.resize(size, Image.Resampling.LANCZOS, box=box)


def paste_edit(image: Image.Image, answer: Image.Image, plan: EditPlan) -> Image.Image:
    """The original with the edited region of a model's answer of the same size, faded in from the region's border.
    Raises NotEdited: nothing changed visibly, or the model changed light, contrast or detail of the whole picture."""
    region = plan.region_in(image) or changed_region(image, answer)
    _refuse_restyled(image, answer, region)
    left, top, right, bottom = region
    feather = max(2, round(0.08 * min(right - left, bottom - top)))
    inside = np.zeros((image.height, image.width), dtype=np.uint8)
    inside[top:bottom, left:right] = 1
    # A side that is the picture's own border has nothing outside to be far from: it needs no fading.
    steps = cv2.distanceTransform(inside, cv2.DIST_C, 3)[top:bottom, left:right, None] - 1
    share = np.minimum(1.0, steps / feather) if not inside.all() else 1.0
    result = np.array(image)
    part = result[top:bottom, left:right]
    part[:] = levels(part * (1.0 - share) + np.asarray(answer)[top:bottom, left:right] * share)
    return Image.fromarray(result)


def changed_region(original: Image.Image, edited: Image.Image) -> Region:
    """The smallest region around what changed visibly, a little grown. Raises NotEdited if nothing did."""
    change = np.abs(np.asarray(edited, dtype=np.int16) - np.asarray(original, dtype=np.int16)).max(axis=2)
    found = (change > _REDRAWN).astype(np.uint8)
    if not found.any():
        raise NotEdited("edit without effect", "nothing changed visibly")
    # A model moves edges by a fraction of a pixel everywhere: thin lines of change are not meant.
    broad = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), dtype=np.uint8))
    return region_of(broad if broad.any() else found, max(4, round(0.02 * max(original.size))))


def _refuse_restyled(original: Image.Image, answer: Image.Image, region: Region) -> None:
    """What a model did to the picture outside of the region it did inside, too, and only the inside is taken over."""
    # On half the scale, where the smallest details, that every model redraws, do not count.
    found = check_edit(original.reduce(2), answer.reduce(2), tuple(side // 2 for side in region)).measures
    found = {"outside_sharpness": 1.0, "outside_cast": 0.0, "outside_contrast": 1.0} | found
    cast, contrast = found["outside_cast"], found["outside_contrast"]
    if found["outside_sharpness"] < _SHARPNESS:
        raise NotEdited("whole picture blurred", f"sharpness times {found['outside_sharpness']:.2f}")
    if cast > _CAST or not 1 / _SPREAD <= contrast <= _SPREAD:
        raise NotEdited("whole picture restyled", f"levels shifted by {cast:.1f}, contrast times {contrast:.2f}")
