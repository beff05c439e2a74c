"""An editor without a model: recolour, move, erase, add, replace, re-letter. Works on every picture with a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from data_prep.images.edit.base import Offline
from data_prep.images.edit.drawing import lay_shape, lay_text
from data_prep.images.edit.inpaint import fill
from data_prep.images.edit.matte import Matte, mask_in, matte_of
from data_prep.images.edit.plan import EditPlan, NotEdited, Operation, Region, clipped, region_of, seen_region, union

# Surroundings that are looked at besides the region itself, for inpainting.
_LEAST_CONTEXT = 32
# Coverage below this cannot be seen in 8 bits.
_VISIBLE = 1 / 512


class ProceduralEditor(Offline):
    """Carries out every operation but ``free``.

    A plan's ``details`` by operation (colours as ``[r, g, b]``; boxes as left, top, right, bottom, fractions allowed):

    - recolour: ``colour``. Texture and shading stay.
    - move: ``by`` (columns, rows).
    - erase: nothing.
    - add: ``figure``, ``colour``, ``box`` (default: the region), ``ramp`` (see :data:`drawing.RAMPS`).
    - replace: erase, then as add.
    - reletter: ``text``, ``colour`` (default: that of the old letters).

    All but ``add`` need a mask; without one it is what stands out from the rim of the plan's region.

    Args:
        font: TrueType file for letters; None for the font that Pillow brings.
    """

    operations: frozenset[Operation] = frozenset({"recolour", "move", "erase", "add", "replace", "reletter"})

    def __init__(self, font: str | None = None) -> None:
        self.font = font
        self.name = f"procedural-1 font={font}" if font else "procedural-1"

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.base.Editor`; the seed has no influence."""
        return self.edit_now(image, plan)

    def edit_now(self, image: Image.Image, plan: EditPlan) -> Image.Image:
        """The same without an event loop."""
        if plan.operation not in self.operations:
            raise NotEdited("operation not offline", f"{plan.operation}: needs a generative editor")
        mask = plan.mask_of(image)
        region = seen_region(plan.region, image) if plan.region is not None else None
        if region is None:
            if mask is None and "box" not in plan.details:
                raise NotEdited("no region", "an offline editor needs a region, a mask or a box")
            region = region_of(mask) if mask is not None else clipped(_box(plan.details, None), _shape(image))
        left, top, right, bottom = _context(region, plan, image)
        whole = np.asarray(image)
        pixels = whole[top:bottom, left:right].astype(np.float64)
        part = None if mask is None else mask[top:bottom, left:right]
        if mask is not None and part.sum() < mask.sum():
            raise NotEdited("mask outside the region", f"region {region}")
        moved = _Moved(plan.details, (left, top), _within(region, (left, top)), self.font)
        if part is None and plan.operation != "add":
            part = mask_in(pixels, moved.region)
        edited = _OPERATIONS[plan.operation](pixels, part, moved)
        result = whole.copy()
        result[top:bottom, left:right] = np.clip(np.floor(edited + 0.5), 0, 255).astype(np.uint8)
        if np.array_equal(result, whole):
            raise NotEdited("edit without effect", plan.operation)
        return Image.fromarray(result)


class _Moved:
    """Details of a plan, in the coordinates of a part of the picture."""

    def __init__(self, details: dict[str, Any], corner: tuple[int, int], region: Region, font: str | None) -> None:
        self.details, self.corner, self.region, self.font = details, corner, region, font

    def colour(self, default: np.ndarray | None = None) -> np.ndarray:
        value = self.details.get("colour", default)
        try:
            colour = np.array(value, dtype=np.float64)
        except (TypeError, ValueError):
            colour = np.zeros(0)
        if colour.shape != (3,) or not ((colour >= 0) & (colour <= 255)).all():
            raise NotEdited("no colour to edit with", f"{value!r}, needed: three numbers of 0 to 255")
        return colour

    def box(self) -> tuple[float, float, float, float]:
        box = _box(self.details, None)
        if box is None:
            return tuple(map(float, self.region))
        left, top = self.corner
        return box[0] - left, box[1] - top, box[2] - left, box[3] - top


def _within(region: Region, corner: tuple[int, int]) -> Region:
    """A region in the coordinates of a part of the picture that starts at ``corner``."""
    left, top = corner
    return region[0] - left, region[1] - top, region[2] - left, region[3] - top


def _box(details: dict[str, Any], default: Any) -> Any:
    value = details.get("box", default)
    if value is None:
        return None
    try:
        left, top, right, bottom = (float(side) for side in value)
    except (TypeError, ValueError):
        raise NotEdited("no box to draw in", f"{value!r}, needed: left, top, right, bottom") from None
    if not (-1e4 < left < right < 1e6 and -1e4 < top < bottom < 1e6):
        raise NotEdited("no box to draw in", f"{value!r}")
    return left, top, right, bottom


def _shape(image: Image.Image) -> tuple[int, int]:
    return image.height, image.width


def _context(region: Region, plan: EditPlan, image: Image.Image) -> Region:
    """The part of the picture that is worked on."""
    box = _box(plan.details, None)
    if box is not None:
        region = union(region, clipped(box, _shape(image)))
    margin = max(_LEAST_CONTEXT, 2 * max(region[2] - region[0], region[3] - region[1]))
    return clipped((region[0] - margin, region[1] - margin, region[2] + margin, region[3] + margin), _shape(image))


def _recolour(pixels: np.ndarray, mask: np.ndarray, plan: _Moved) -> np.ndarray:
    matte = matte_of(pixels, mask)
    # The same shift everywhere keeps texture; as much of it as the object covers keeps edges.
    return pixels + matte.alpha[..., None] * (plan.colour() - matte.colour)


def _erase(pixels: np.ndarray, mask: np.ndarray, plan: _Moved) -> np.ndarray:
    return _without(pixels, matte_of(pixels, mask))


def _without(pixels: np.ndarray, matte: Matte) -> np.ndarray:
    from scipy import ndimage

    hole = ndimage.binary_dilation(matte.alpha > _VISIBLE, np.ones((3, 3), dtype=bool))
    return fill(pixels, hole)


def _move(pixels: np.ndarray, mask: np.ndarray, plan: _Moved) -> np.ndarray:
    try:
        across, down = (int(step) for step in plan.details["by"])
    except (KeyError, TypeError, ValueError):
        raise NotEdited("no way to move", f"{plan.details.get('by')!r}, needed: columns and rows") from None
    matte = matte_of(pixels, mask)
    left, top, right, bottom = region_of(matte.alpha > _VISIBLE)
    height, width = mask.shape
    if not (0 <= left + across and right + across <= width and 0 <= top + down and bottom + down <= height):
        raise NotEdited("moved out of the picture", f"by {across}, {down}")
    ground = _without(pixels, matte)
    here, there = (slice(top, bottom), slice(left, right)), (slice(top + down, bottom + down),
                                                             slice(left + across, right + across))  # fmt: skip
    alpha = matte.alpha[here][..., None]
    moved = ground.copy()
    moved[there] = ground[there] * (1 - alpha) + matte.object[here] * alpha
    return moved


def _add(pixels: np.ndarray, mask: np.ndarray | None, plan: _Moved) -> np.ndarray:
    figure, ramp = str(plan.details.get("figure", "")), str(plan.details.get("ramp", "box4"))
    return lay_shape(pixels, figure, plan.box(), plan.colour(), ramp)


def _replace(pixels: np.ndarray, mask: np.ndarray, plan: _Moved) -> np.ndarray:
    return _add(_erase(pixels, mask, plan), None, plan)


def _reletter(pixels: np.ndarray, mask: np.ndarray, plan: _Moved) -> np.ndarray:
    matte = matte_of(pixels, mask)
    text = str(plan.details.get("text", ""))
    box = _box(plan.details, None)
    place = plan.box() if box is not None else tuple(map(float, region_of(mask)))
    # Thin letters have few fully covered pixels; those that are tell the ink's colour.
    ink = np.median(pixels[matte.alpha >= min(0.95, float(matte.alpha.max()))], axis=0)
    return lay_text(_without(pixels, matte), text, place, plan.colour(ink), plan.font)


_OPERATIONS = {
    "recolour": _recolour,
    "move": _move,
    "erase": _erase,
    "add": _add,
    "replace": _replace,
    "reletter": _reletter,
}
