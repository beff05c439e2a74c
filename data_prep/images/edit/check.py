"""Verifies an edited picture by measurements: only the region changed, and nothing in it looks edited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data_prep.images.edit.plan import Region, region_of

if TYPE_CHECKING:
    from PIL import Image

# Highest luminance steps of a region whose contrast is below this say nothing about blur.
_CONTRAST = 20.0
# Keeps ratios of sharpness sensible for flat pictures, which have none: a level of noise that nobody sees.
_FLOOR = 1.0


@dataclass(frozen=True)
class EditLimits:
    """What an edit may do; levels are those of 8-bit channels."""

    margin: int = 2  # pixels by which the region is grown before outside and inside are told apart (softened edges)
    changed: float = 12.0  # levels from which on a pixel counts as changed, for the two limits that follow
    least_changed: float = 0.004  # share of the region that changed at least
    least_pixels: int = 8
    cast: float = 1.0  # mean shift of a channel outside at most
    contrast: float = 1.03  # spread of luminance outside, after to before, within 1/x and x
    outside_mean: float = 0.5  # mean change outside at most
    outside_share: float = 0.01  # share of the pixels outside that changed by more than the next one, at most
    outside_level: float = 3.0
    sharper: float = 1.15  # variance of the Laplacian outside, after to before, within 1/x and x
    grain: float = 2.5  # of fine detail inside, likewise
    edge: float = 0.4  # steepest step in the region over its contrast: after at least this share of before
    rim: float = 0.2  # share of the pixels along the inner border of the region that changed by more than the next one
    rim_level: float = 5.0


@dataclass(frozen=True)
class EditCheck:
    """What came of it: ``reason`` is None for a good edit, else short, for counting; ``measures`` go in the report."""

    reason: str | None
    measures: dict[str, float] = field(default_factory=dict)


def check_edit(
    original: Image.Image,
    edited: Image.Image,
    region: Region | np.ndarray,
    limits: EditLimits = EditLimits(),
) -> EditCheck:
    """Compare a picture with its edit.

    Args:
        original, edited: RGB.
        region: left, top, right, bottom in pixels, or booleans (height, width): where the edit may change something.

    Returns:
        The first fault found, of: size changed, no change in the region, colour cast, contrast changed, sharpness
        changed outside, changed outside the region, seam at the region's border, blurred in the region, grain changed
        in the region.
    """
    if original.size != edited.size:
        return EditCheck("size changed")
    before, after = (np.asarray(image, dtype=np.float32) for image in (original, edited))
    core = _core(region, before.shape)
    change = np.abs(after - before).max(axis=2)
    changed = int((change[core] > limits.changed).sum())
    measures = {"changed_share": changed / max(1, int(core.sum()))}
    if changed < limits.least_pixels or measures["changed_share"] < limits.least_changed:
        return EditCheck("no change in the region", measures)
    fine = [cv2.Laplacian(_light(pixels), cv2.CV_32F, borderType=cv2.BORDER_REPLICATE) for pixels in (before, after)]
    measures |= _outside(before, after, fine, core, change, limits) | _rim(core, change, limits)
    measures |= _inside(before, after, fine, core)
    bounds = {
        "outside_cast": ("colour cast", 0, limits.cast),
        "outside_contrast": ("contrast changed", 1 / limits.contrast, limits.contrast),
        "outside_sharpness": ("sharpness changed outside", 1 / limits.sharper, limits.sharper),
        "outside_mean": ("changed outside the region", 0, limits.outside_mean),
        "outside_share": ("changed outside the region", 0, limits.outside_share),
        "rim_share": ("seam at the region's border", 0, limits.rim),
        "edge_ratio": ("blurred in the region", limits.edge, np.inf),
        "grain_ratio": ("grain changed in the region", 1 / limits.grain, limits.grain),
    }
    for name, (reason, low, high) in bounds.items():
        if not low <= measures.get(name, low) <= high:
            return EditCheck(reason, measures)
    return EditCheck(None, measures)


def _core(region: Region | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(region, np.ndarray):
        if region.shape != shape[:2]:
            raise ValueError(f"region of shape {region.shape}, picture {shape[:2]}")
        return region.astype(bool)
    left, top, right, bottom = region
    core = np.zeros(shape[:2], dtype=bool)
    core[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    return core


def _grown(core: np.ndarray, by: int) -> np.ndarray:
    return cv2.dilate(core.astype(np.uint8), np.ones((2 * by + 1,) * 2, dtype=np.uint8)) > 0


def _outside(
    before: np.ndarray,
    after: np.ndarray,
    fine: list[np.ndarray],
    core: np.ndarray,
    change: np.ndarray,
    limits: EditLimits,
) -> dict[str, float]:
    outside, calm = ~_grown(core, limits.margin), ~_grown(core, limits.margin + 1)
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
        "outside_share": float((change[outside] > limits.outside_level).mean()),
    }


def _rim(core: np.ndarray, change: np.ndarray, limits: EditLimits) -> dict[str, float]:
    """An edit fades out before the region ends; a piece that was put in ends with it."""
    # Inside, next to a pixel outside that is in the picture: the picture's own border is no seam. With the margin the
    # edit may end at the core's own border as well.
    grown = _grown(core, limits.margin)
    rims = [_grown(~inside, 1) & inside for inside in (grown, core)]
    shares = [float((change[rim] > limits.rim_level).mean()) for rim in rims if rims[0].any() and rim.any()]
    return {"rim_share": max(shares)} if shares else {}


def _inside(before: np.ndarray, after: np.ndarray, fine: list[np.ndarray], core: np.ndarray) -> dict[str, float]:
    measures = {}
    ring = _grown(core, 8) & ~_grown(core, 1)
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
