"""An editor without a model: recolour, move, erase, add, replace, re-letter. Works on every picture with a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from data_prep.images.edit.base import Offline
from data_prep.images.edit.cutout import levels, mask_in, matte_of, without
from data_prep.images.edit.drawing import lay_shape, lay_text
from data_prep.images.edit.plan import EditPlan, NotEdited, Operation, clipped, region_of, seen_region


class ProceduralEditor(Offline):
    """Carries out every operation but ``free``.

    A plan's ``details`` by operation (colours as ``[r, g, b]``; boxes as left, top, right, bottom, fractions allowed):

    - recolour: ``colour``. Texture and shading stay.
    - move: ``by`` (columns, rows).
    - erase: nothing.
    - add: ``figure``, ``colour``, ``box`` (default: the region), ``ramp`` (see :data:`drawing.RAMPS`).
    - replace: erase, then as add.
    - reletter: ``text``, ``colour`` (default: that of the old letters), ``box`` (default: around those).

    All but ``add`` need a mask; without one it is what stands out from the rim of the plan's region.

    Args:
        font: TrueType file for letters; None for the font that Pillow brings.
    """

    operations: frozenset[Operation] = frozenset({"recolour", "move", "erase", "add", "replace", "reletter"})

    def __init__(self, font: str | None = None) -> None:
        self.font = font
        self.name = f"procedural-2 font={font}" if font else "procedural-2"

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.base.Editor`; the seed has no influence."""
        return self.edit_now(image, plan)

    def edit_now(self, image: Image.Image, plan: EditPlan) -> Image.Image:
        """The same without an event loop."""
        if plan.operation not in self.operations:
            raise NotEdited("operation not offline", f"{plan.operation}: needs a generative editor")
        pixels, details = np.asarray(image), plan.details
        mask, box = plan.mask_of(image), _box(details)
        region = seen_region(plan.region, image) if plan.region is not None else None
        if region is None:
            if mask is None and box is None:
                raise NotEdited("no region", "an offline editor needs a region, a mask or a box")
            region = region_of(mask) if mask is not None else clipped(box, pixels.shape)
        if plan.operation == "add":
            result = _added(pixels, box or region, details)
        else:
            mask = mask if mask is not None else mask_in(pixels, region)
            result = getattr(self, f"_{plan.operation}")(pixels, mask, box, region, details)
        if np.array_equal(result, pixels):
            raise NotEdited("edit without effect", plan.operation)
        return Image.fromarray(result)

    def _recolour(self, pixels, mask, box, region, details) -> np.ndarray:
        colour, matte = _colour(details), matte_of(pixels, mask)
        # The same shift everywhere keeps texture; as much of it as the object covers keeps edges.
        return _changed(pixels, matte.region, lambda part: part + matte.alpha * (colour - matte.colour))

    def _erase(self, pixels, mask, box, region, details) -> np.ndarray:
        return without(pixels, matte_of(pixels, mask))

    def _move(self, pixels, mask, box, region, details) -> np.ndarray:
        try:
            across, down = (int(step) for step in details["by"])
        except (KeyError, TypeError, ValueError):
            raise NotEdited("no way to move", f"{details.get('by')!r}, needed: columns and rows") from None
        matte = matte_of(pixels, mask)
        left, top, right, bottom = there = tuple(
            side + step for side, step in zip(matte.region, (across, down) * 2, strict=True)
        )
        if not (0 <= left and right <= pixels.shape[1] and 0 <= top and bottom <= pixels.shape[0]):
            raise NotEdited("moved out of the picture", f"by {across}, {down}")
        return _changed(
            without(pixels, matte), there, lambda part: part * (1 - matte.alpha) + matte.object * matte.alpha
        )

    def _replace(self, pixels, mask, box, region, details) -> np.ndarray:
        return _added(self._erase(pixels, mask, box, region, details), box or region, details)

    def _reletter(self, pixels, mask, box, region, details) -> np.ndarray:
        matte = matte_of(pixels, mask)
        # Thin letters have few fully covered pixels; those that are tell the ink's colour.
        ink = np.median(matte.object[matte.alpha[..., 0] >= min(0.95, float(matte.alpha.max()))], axis=0)
        text, place = str(details.get("text", "")), box or region_of(mask)
        return lay_text(without(pixels, matte), text, place, _colour(details, ink), self.font)


def _changed(pixels: np.ndarray, region: tuple[int, ...], change: Any) -> np.ndarray:
    left, top, right, bottom = region
    result = pixels.copy()
    result[top:bottom, left:right] = levels(change(pixels[top:bottom, left:right].astype(np.float64)))
    return result


def _added(pixels: np.ndarray, box: tuple[float, ...], details: dict[str, Any]) -> np.ndarray:
    figure, ramp = str(details.get("figure", "")), str(details.get("ramp", "box4"))
    return lay_shape(pixels, figure, box, _colour(details), ramp)


def _colour(details: dict[str, Any], default: np.ndarray | None = None) -> np.ndarray:
    value = details.get("colour", default)
    try:
        colour = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        colour = np.zeros(0)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 255)).all():
        raise NotEdited("no colour to edit with", f"{value!r}, needed: three numbers of 0 to 255")
    return colour


def _box(details: dict[str, Any]) -> tuple[float, float, float, float] | None:
    value = details.get("box")
    if value is None:
        return None
    try:
        left, top, right, bottom = (float(side) for side in value)
    except (TypeError, ValueError):
        raise NotEdited("no box to draw in", f"{value!r}, needed: left, top, right, bottom") from None
    if not (-1e4 < left < right < 1e6 and -1e4 < top < bottom < 1e6):
        raise NotEdited("no box to draw in", f"{value!r}")
    return left, top, right, bottom
