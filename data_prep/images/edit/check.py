"""Verifies an edited picture by measurements: only the region changed, and nothing in it looks edited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from data_prep.images.edit.plan import Region

if TYPE_CHECKING:
    from PIL import Image

# Highest luminance steps of a region whose contrast is below this say nothing about blur.
_CONTRAST = 20.0
# Keeps ratios of sharpness sensible for flat pictures, which have none: a level of noise that nobody sees.
_FLOOR = 1.0


@dataclass(frozen=True)
class EditLimits:
    """What an edit may do; levels are those of 8-bit channels.

    Attributes:
        margin: pixels by which the region is grown before outside and inside are told apart (softened edges).
        changed: levels from which on a pixel counts as changed, for the two limits that follow.
        least_changed: share of the region that changed at least, and ``least_pixels`` in numbers.
        cast: mean shift of a channel outside the region at most.
        contrast: ratio of the spread of luminance outside, after to before, within 1/x and x.
        outside_mean: mean change outside at most.
        outside_share: share of the pixels outside that changed by more than ``outside_level``, at most.
        sharper: ratio of the variance of the Laplacian outside, within 1/x and x; ``grain``: of fine detail inside.
        edge: steepest step in the region over its contrast: after at least this share of before.
        rim: share of the pixels along the inner border of the region that changed visibly, at most.
        rim_level: levels that can be seen along a border.
    """

    margin: int = 2
    changed: float = 12.0
    least_changed: float = 0.004
    least_pixels: int = 8
    cast: float = 1.0
    contrast: float = 1.03
    outside_mean: float = 0.5
    outside_share: float = 0.01
    outside_level: float = 3.0
    sharper: float = 1.15
    grain: float = 2.5
    edge: float = 0.4
    rim: float = 0.2
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
    measures: dict[str, float] = {}
    for measure in (_inside, _outside, _rim, _sharpness):
        reason = measure(before, after, core, limits, measures)
        if reason is not None:
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
    """Square growth; separable, since a box filter over a large photo is much slower."""
    if by <= 0:
        return core
    from scipy import ndimage

    return ndimage.maximum_filter(core, size=2 * by + 1, mode="constant")


def _inside(
    before: np.ndarray, after: np.ndarray, core: np.ndarray, limits: EditLimits, measures: dict[str, float]
) -> str | None:
    change = np.abs(after - before).max(axis=2)
    count = int((change[core] > limits.changed).sum())
    measures["changed_share"] = count / max(1, int(core.sum()))
    few = count < limits.least_pixels or measures["changed_share"] < limits.least_changed
    return "no change in the region" if few else None


def _outside(
    before: np.ndarray, after: np.ndarray, core: np.ndarray, limits: EditLimits, measures: dict[str, float]
) -> str | None:
    outside = ~_grown(core, limits.margin)
    if outside.sum() < 16:
        return None  # the region is the whole picture
    one, other = before[outside], after[outside]
    difference = other - one
    light_before, light_after = _light(before), _light(after)
    spread = (float(light_after[outside].std()) + _FLOOR) / (float(light_before[outside].std()) + _FLOOR)
    calm = ~_grown(core, limits.margin + 1)
    sharpness = _ratio(_laplacian(light_after), _laplacian(light_before), calm)
    change = np.abs(difference).max(axis=1)
    measures |= {
        "outside_cast": float(np.abs(difference.mean(axis=0)).max()),
        "outside_contrast": spread,
        "outside_sharpness": sharpness,
        "outside_mean": float(np.abs(difference).mean()),
        "outside_share": float((change > limits.outside_level).mean()),
    }
    if measures["outside_cast"] > limits.cast:
        return "colour cast"
    if not 1 / limits.contrast <= spread <= limits.contrast:
        return "contrast changed"
    if not 1 / limits.sharper <= sharpness <= limits.sharper:
        return "sharpness changed outside"
    if measures["outside_mean"] > limits.outside_mean or measures["outside_share"] > limits.outside_share:
        return "changed outside the region"
    return None


def _rim(
    before: np.ndarray, after: np.ndarray, core: np.ndarray, limits: EditLimits, measures: dict[str, float]
) -> str | None:
    """An edit fades out before the region ends; a piece that was put in ends with it."""
    grown = _grown(core, limits.margin)
    # Inside, next to a pixel outside that is in the picture: the picture's own border is no seam.
    beside = _grown(~grown, 1) & grown
    if not beside.any():
        return None
    change = np.abs(after - before).max(axis=2)
    # With the margin the edit may end at the core's own border as well.
    border = beside if limits.margin == 0 else beside | (_grown(~core, 1) & core)
    shares = [float((change[where] > limits.rim_level).mean()) for where in (beside, border & core) if where.any()]
    measures["rim_share"] = max(shares)
    return "seam at the region's border" if measures["rim_share"] > limits.rim else None


def _sharpness(
    before: np.ndarray, after: np.ndarray, core: np.ndarray, limits: EditLimits, measures: dict[str, float]
) -> str | None:
    rows, columns = np.nonzero(core.any(axis=1))[0], np.nonzero(core.any(axis=0))[0]
    part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    one, other, inside = before[part], after[part], core[part]
    ring = _grown(core, 8) & ~_grown(core, 1)
    # What was erased leaves what is around it: no sharper edges than those are wanted.
    wanted = [found for found in (_steepness(one, inside), _steepness(before, ring)) if found is not None]
    steepness = _steepness(other, inside)
    if wanted and steepness is not None:
        measures["edge_ratio"] = steepness / min(wanted)
        if measures["edge_ratio"] < limits.edge:
            return "blurred in the region"
    # The grain may be that of the old content or that of the surroundings, or between the two.
    grains = [_grain(before, core)] + ([_grain(before, ring)] if ring.sum() >= 64 else [])
    found = _grain(after, core)
    measures["grain_ratio"] = found / min(max(found, min(grains)), max(grains))
    if not 1 / limits.grain <= measures["grain_ratio"] <= limits.grain:
        return "grain changed in the region"
    return None


def _light(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array((0.299, 0.587, 0.114), dtype=np.float32)


def _laplacian(light: np.ndarray) -> np.ndarray:
    wide = np.pad(light, 1, mode="edge")
    return wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4 * light


def _ratio(after: np.ndarray, before: np.ndarray, where: np.ndarray) -> float:
    if not where.any():
        return 1.0
    return (float(after[where].var()) + _FLOOR) / (float(before[where].var()) + _FLOOR)


def _steepness(pixels: np.ndarray, inside: np.ndarray) -> float | None:
    """Steepest step between neighbours over the contrast, in the channel of most contrast; None without contrast."""
    if inside.sum() < 16 or min(inside.shape) < 3:
        return None
    low, high = np.percentile(pixels[inside], (1, 99), axis=0)
    channel = int((high - low).argmax())
    contrast = float((high - low)[channel])
    if contrast < _CONTRAST:
        return None
    plane = pixels[..., channel]
    down = np.abs(np.diff(plane, axis=0))[inside[1:] & inside[:-1]]
    across = np.abs(np.diff(plane, axis=1))[inside[:, 1:] & inside[:, :-1]]
    steps = np.concatenate([down, across])
    # Not the one steepest step: a speck would hide a blur.
    count = max(4, len(steps) // 200)
    if len(steps) < count:
        return None
    return float(np.partition(steps, len(steps) - count)[-count:].mean()) / contrast


def _grain(pixels: np.ndarray, where: np.ndarray) -> float:
    """Fine detail where there are no edges: the lower quarter of the Laplacian's sizes."""
    laplacian = np.abs(_laplacian(_light(pixels)))[where]
    return float(np.percentile(laplacian, 25)) + _FLOOR
