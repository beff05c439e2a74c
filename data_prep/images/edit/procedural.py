"""An editor without a model: recolour, move, erase, add, replace, re-letter. Works on every picture with a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from data_prep.images.edit.cutout import Matte, levels, matte_of, without
from data_prep.images.edit.drawing import lay_shape, lay_text
from data_prep.images.edit.plan import EditPlan, NotEdited, Offline, Operation, clipped, region_of

# What a plan's details must say.
_NEEDED = {
    "recolour": ("colour",), "move": ("by",), "erase": (), "add": ("figure", "colour"), "replace": ("figure", "colour"),
    "reletter": ("text",),
}  # fmt: skip


class ProceduralEditor(Offline):
    """Carries out every operation but ``free``; texture, shading and soft edges stay.

    All but ``add`` need a mask. What is recoloured is drawn again where details name its ``figure``. Letters have the
    colour of the old ones if details name none.
    """

    name = "procedural-4"
    operations: frozenset[Operation] = frozenset(_NEEDED)

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.plan.Offline`; the seed has no influence."""
        if plan.operation not in self.operations:
            raise NotEdited("operation not offline", f"{plan.operation}: needs a generative editor")
        if missing := [name for name in _NEEDED[plan.operation] if getattr(plan.details, name) is None]:
            raise NotEdited("incomplete plan", f"{plan.operation} without details.{missing[0]}")
        pixels, mask, region, box = np.asarray(image), plan.mask_of(image), plan.region_in(image), plan.details.box
        if plan.operation == "add":
            if (box := box or region) is None:
                raise NotEdited("no region", "to add something needs a region, or details.box")
            result = lay_shape(pixels, plan.details.figure, box, plan.details.colour)
        elif mask is None:
            raise NotEdited("no mask", f"{plan.operation} needs a mask")
        else:
            box = box or (region if plan.operation == "replace" else None) or region_of(mask)
            result = self._changed(plan, pixels, matte_of(pixels, mask), box)
        if np.array_equal(result, pixels):
            raise NotEdited("edit without effect", plan.operation)
        return Image.fromarray(result)

    def _changed(self, plan: EditPlan, pixels: np.ndarray, matte: Matte, box: tuple[float, ...]) -> np.ndarray:
        details, alpha, colour = plan.details, matte.alpha, plan.details.colour
        if plan.operation == "recolour" and details.figure is None:
            # The same shift everywhere keeps texture; as much of it as the object covers keeps edges.
            shift = np.array(colour) - (matte.object * alpha).sum(axis=(0, 1)) / alpha.sum()
            return _with(pixels, matte.region, lambda part: part + alpha * shift)
        rest = without(pixels, matte)
        if plan.operation in ("replace", "recolour"):
            return lay_shape(rest, details.figure, box, colour)
        if plan.operation == "reletter":
            # Thin letters have few fully covered pixels; those that are tell the ink's colour.
            ink = np.median(matte.object[alpha[..., 0] >= min(0.95, float(alpha.max()))], axis=0)
            return lay_text(rest, details.text, box, ink if colour is None else colour)
        if plan.operation == "move":
            there = tuple(side + step for side, step in zip(matte.region, details.by * 2, strict=True))
            if clipped(there, pixels.shape) != there:
                raise NotEdited("moved out of the picture", f"by {details.by}")
            return _with(rest, there, lambda part: part * (1 - alpha) + matte.object * alpha)
        return rest  # erased


def _with(pixels: np.ndarray, region: tuple[int, ...], change: Any) -> np.ndarray:
    left, top, right, bottom = region
    result = pixels.copy()
    result[top:bottom, left:right] = levels(change(pixels[top:bottom, left:right].astype(np.float64)))
    return result
