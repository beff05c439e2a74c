"""Verifies an edited picture by measurements: only the region changed, and nothing in it looks edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from data_prep.images.edit.cutout import Ground, grown
from data_prep.images.edit.plan import Region, region_of

if TYPE_CHECKING:
    from PIL import Image

# Levels are those of 8-bit channels. Pixels by which the region is grown before outside and inside are told apart
# (softened edges), and the levels from which on a pixel counts as changed: in the region, outside, along its border.
_MARGIN, _CHANGED, _CHANGED_OUTSIDE, _CHANGED_RIM = 2, 12.0, 3.0, 5.0
_LEAST_PIXELS = 8
# Highest luminance steps of a region whose contrast is below this say nothing about blur.
_CONTRAST = 20.0
# Keeps ratios of sharpness sensible for flat pictures, which have none: a level of noise that nobody sees.
_FLOOR = 1.0
# By measure: what is wrong if it lies outside of these limits. Ratios are of the edit to the original.
_LIMITS = {
    "changed_share": ("no change in the region", 0.004, 1),  # of its pixels
    "outside_cast": ("colour cast", 0, 1.0),  # mean shift of a channel
    "outside_contrast": ("contrast changed", 1 / 1.03, 1.03),  # ratio of the spread of luminance
    "outside_sharpness": ("sharpness changed outside", 1 / 1.15, 1.15),  # ratio of the Laplacian's variance
    "outside_mean": ("changed outside the region", 0, 0.5),  # mean change
    "outside_share": ("changed outside the region", 0, 0.01),  # of the pixels changed
    "rim_share": ("seam at the region's border", 0, 0.2),  # of the pixels along it changed
    "edge_ratio": ("blurred in the region", 0.4, np.inf),  # of the steepest step over the contrast
    "grain_ratio": ("grain changed in the region", 1 / 2.5, 2.5),  # of fine detail
    "foreign": ("something in the place of what was erased", 0, 0),  # whether it is unlike what is around it
}


class EditCheck(NamedTuple):
    """What came of it: ``reason`` is None for a good edit, else short, for counting; ``measures`` go in the report."""

    reason: str | None
    measures: dict[str, float]


def check_edit(
    original: Image.Image, edited: Image.Image, region: Region, erased: np.ndarray | None = None
) -> EditCheck:
    """Compare an RGB picture with its edit, which may change the region; the first fault in the order of the table.
    ``erased`` is the mask (height, width) of what should be gone; true everywhere if only the region is known."""
    if original.size != edited.size:
        return EditCheck("size changed", {})
    before, after = (np.asarray(image, dtype=np.float32) for image in (original, edited))
    left, top, right, bottom = region
    core = np.zeros(before.shape[:2], dtype=bool)
    core[top:bottom, left:right] = True
    change = np.abs(after - before).max(axis=2)
    changed = int((change[core] > _CHANGED).sum())
    measures = {"changed_share": changed / max(1, int(core.sum())) if changed >= _LEAST_PIXELS else 0.0}
    if measures["changed_share"]:
        fine = [cv2.Laplacian(_light(one), cv2.CV_32F, borderType=cv2.BORDER_REPLICATE) for one in (before, after)]
        measures |= _outside(before, after, fine, core) | _rim(core, change) | _inside(before, after, fine, core)
        if erased is not None:
            measures["foreign"] = _foreign(after, erased & core & grown(change > _CHANGED, 3))
    for name, (reason, low, high) in _LIMITS.items():
        if not low <= measures.get(name, low) <= high:
            return EditCheck(reason, measures)
    return EditCheck(None, measures)


def _outside(before: np.ndarray, after: np.ndarray, fine: list[np.ndarray], core: np.ndarray) -> dict[str, float]:
    outside, calm = ~grown(core, _MARGIN), ~grown(core, _MARGIN + 1)
    if outside.sum() < 16:
        return {}  # the region is the whole picture
    difference = (after - before)[outside]
    spreads = [float(_light(pixels)[outside].std()) + _FLOOR for pixels in (before, after)]
    details = [float(laplacian[calm].var()) + _FLOOR if calm.any() else 1.0 for laplacian in fine]
    return {
        "outside_cast": float(np.abs(difference.mean(axis=0)).max()),
        "outside_contrast": spreads[1] / spreads[0],
        "outside_sharpness": details[1] / details[0],
        "outside_mean": float(np.abs(difference).mean()),
        "outside_share": float((np.abs(difference).max(axis=1) > _CHANGED_OUTSIDE).mean()),
    }


def _rim(core: np.ndarray, change: np.ndarray) -> dict[str, float]:
    """An edit fades out before the region ends; a piece that was put in ends with it."""
    # Inside, next to a pixel outside that is in the picture: the picture's own border is no seam. With the margin the
    # edit may end at the core's own border as well.
    rims = [grown(~inside, 1) & inside for inside in (grown(core, _MARGIN), core)]
    shares = [float((change[rim] > _CHANGED_RIM).mean()) for rim in rims if rims[0].any() and rim.any()]
    return {"rim_share": max(shares)} if shares else {}


def _inside(before: np.ndarray, after: np.ndarray, fine: list[np.ndarray], core: np.ndarray) -> dict[str, float]:
    measures = {}
    ring = grown(core, 8) & ~grown(core, 1)
    # What was erased leaves what is around it: no sharper edges than those are wanted.
    wanted = [found for found in (_steepness(before, core), _steepness(before, ring)) if found is not None]
    steepness = _steepness(after, core)
    if wanted and steepness is not None:
        measures["edge_ratio"] = steepness / min(wanted)
    # Fine detail where there are no edges: the lower quarter of the Laplacian's sizes. It may be that of the old
    # content or that of the surroundings, or between the two.
    places = [(fine[0], core), (fine[1], core)] + ([(fine[0], ring)] if ring.sum() >= 64 else [])
    old, new, *around = (float(np.percentile(np.abs(laplacian[where]), 25)) + _FLOOR for laplacian, where in places)
    return measures | {"grain_ratio": new / np.clip(new, min([old, *around]), max([old, *around]))}


def _foreign(after: np.ndarray, gone: np.ndarray) -> float:
    hole = grown(gone, _MARGIN)
    if not gone.any() or hole.all():
        return 0.0
    left, top, right, bottom = region_of(hole, 32)
    part, hole = after[top:bottom, left:right], hole[top:bottom, left:right]
    return float(Ground.around(part, hole).stands_out(part, hole))


def _light(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array((0.299, 0.587, 0.114), dtype=np.float32)


def _steepness(pixels: np.ndarray, inside: np.ndarray) -> float | None:
    """Steepest step between neighbours over the contrast, in the channel of most contrast; None without contrast."""
    if inside.sum() < 16:
        return None
    left, top, right, bottom = region_of(inside)
    pixels, inside = pixels[top:bottom, left:right], inside[top:bottom, left:right]
    low, high = np.percentile(pixels[inside], (1, 99), axis=0)
    channel = int((high - low).argmax())
    contrast = float((high - low)[channel])
    steps = [np.abs(np.diff(pixels[..., channel], axis=axis)) for axis in (0, 1)]
    steps = np.concatenate([steps[0][inside[1:] & inside[:-1]], steps[1][inside[:, 1:] & inside[:, :-1]]])
    # Not the one steepest step: a speck would hide a blur.
    count = max(4, len(steps) // 200)
    if contrast < _CONTRAST or min(inside.shape) < 3 or len(steps) < count:
        return None
    # A shape that fills less than a percent is steeper than the contrast.
    return min(1.0, float(np.partition(steps, len(steps) - count)[-count:].mean()) / contrast)
