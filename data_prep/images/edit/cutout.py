"""Takes an object out of a picture: how much of each pixel it covers, and what could be behind it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.images.edit.plan import NotEdited, Region, clipped, region_of

# Pixels on both sides of a mask's edge in which object and surroundings may be mixed.
_BAND = 2
# Two colours closer than this (levels) cannot be told apart in a mixture.
_CONTRAST = 6.0
# Coverage below this cannot be seen in 8 bits.
_VISIBLE = 1 / 512


@dataclass(frozen=True)
class Matte:
    """An object: the smallest region around every pixel that it touches, (height, width, 1) how much of each it covers,
    0 to 1, and (height, width, 3) its colours, also where it is mixed with the surroundings."""

    region: Region
    alpha: np.ndarray
    object: np.ndarray


def matte_of(pixels: np.ndarray, mask: np.ndarray) -> Matte:
    """Estimate coverage along the mask's edge: each pixel there is a mixture of the nearest sure colours.

    The mask, (height, width) bool, is right to within two pixels.
    """
    left, top, right, bottom = region_of(mask, _BAND + 2)
    part, inside = pixels[top:bottom, left:right].astype(np.float64), mask[top:bottom, left:right].astype(np.uint8)
    # The border of the picture is an edge as well: what lies along it may be mixed.
    sure = cv2.erode(inside, _square(_BAND), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    outside = ~grown(inside, _BAND)
    if not sure.any():
        # A thin object has no inner pixels: its farthest ones from the edge have to do.
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
        sure = depth >= depth.max()
    alpha, own, band = inside.astype(np.float64), part.copy(), ~(sure | outside)
    if outside.any():
        own[band], around = _nearest(part, sure)[band], _nearest(part, outside)[band]
        apart = own[band] - around
        length = (apart**2).sum(axis=1)
        share = ((part[band] - around) * apart).sum(axis=1) / np.maximum(length, 1e-9)
        # Colours alike: the mask's own word.
        alpha[band] = np.where(length > _CONTRAST**2, np.clip(share, 0.0, 1.0), inside[band])
    x0, y0, x1, y1 = region_of(alpha > _VISIBLE)
    return Matte((left + x0, top + y0, left + x1, top + y1), alpha[y0:y1, x0:x1, None], own[y0:y1, x0:x1])


def _nearest(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """For every pixel the colour of the nearest known one, a little smoothed among the known."""
    from scipy import ndimage

    weight = known.astype(np.float64)[..., None]
    sums, counts = (cv2.blur(values, (3, 3), borderType=cv2.BORDER_CONSTANT) for values in (pixels * weight, weight))
    rows, columns = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return (sums / np.maximum(counts, 1e-9)[..., None])[rows, columns]


def without(pixels: np.ndarray, matte: Matte) -> np.ndarray:
    """The picture with an object's place filled.

    A donor of the hole's shape is looked for around it; the fill has the donor's detail and the colours of the
    hole's border. Without room for a donor its detail is grain drawn from what is around it. (cv2.seamlessClone does
    alike, but mixes in gradients of what is taken out.) Raises NotEdited: there is nothing but the object.
    """
    left, top, right, bottom = matte.region
    hole = np.zeros(pixels.shape[:2], dtype=bool)
    hole[top:bottom, left:right] = matte.alpha[..., 0] > _VISIBLE
    hole = grown(hole, 1)
    if hole.all():
        raise NotEdited("nothing around it to fill with")
    left, top, right, bottom = region = region_of(hole)
    left, top, right, bottom = clipped(region, hole.shape, max(32, 2 * max(right - left, bottom - top)))
    part, hole = pixels[top:bottom, left:right].astype(np.float32), hole[top:bottom, left:right]
    ring = grown(hole, 3) & ~hole
    if np.ptp(part[ring], axis=0).max() == 0:
        part[hole] = part[ring][0]  # flat ground
    else:
        detail = _donor(part, hole, ring)
        if detail is None:
            detail, grain = np.zeros_like(part), grain_of(part)[~hole]
            detail[hole] = grain[np.random.default_rng(0).integers(len(grain), size=int(hole.sum()))]
        colours = [cv2.inpaint(one, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA) for one in cv2.split(part - detail)]
        part[hole] = (detail + np.dstack(colours))[hole]
    result = pixels.copy()
    result[top:bottom, left:right][hole] = levels(part[hole])
    return result


def _donor(part: np.ndarray, hole: np.ndarray, ring: np.ndarray) -> np.ndarray | None:
    """The picture shifted so that what lies under the hole fits its border best; None without a place."""
    left, top, right, bottom = region_of(hole, 3)
    here = (slice(top, bottom), slice(left, right))
    under, edge = hole[here].astype(np.float32), ring[here].astype(np.float32)
    light = part.mean(axis=2) - part.mean()

    def variance(where: np.ndarray) -> np.ndarray:
        means = [cv2.matchTemplate(values, where, cv2.TM_CCORR) / where.sum() for values in (light, light**2)]
        return means[1] - means[0] ** 2

    cost = cv2.matchTemplate(part, part[here], cv2.TM_SQDIFF, mask=edge) / (3 * edge.sum())
    # More goes on under the hole than at its edge: some object, not more of the same ground.
    cost += np.maximum(variance(under) - variance(edge), 0)
    cost[cv2.matchTemplate(hole.astype(np.float32), under + edge, cv2.TM_CCORR) > 0.5] = np.inf
    if not np.isfinite(cost).any():
        return None
    down, across = np.unravel_index(cost.argmin(), cost.shape)
    donor = np.zeros_like(part)
    donor[here] = part[down : down + bottom - top, across : across + right - left]
    return donor


def grain_of(pixels: np.ndarray) -> np.ndarray:
    """What is finer than a median of 5 x 5, of float32, and weak; more than that is an edge, not grain."""
    return np.clip(pixels - cv2.medianBlur(pixels, 5), -16, 16)


def grown(mask: np.ndarray, by: int) -> np.ndarray:
    """A mask (height, width) with all that is at most so many pixels beside it."""
    return cv2.dilate(mask.astype(np.uint8), _square(by)) > 0


def _square(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1,) * 2, dtype=np.uint8)


def levels(pixels: np.ndarray) -> np.ndarray:
    """Floats as 8-bit levels."""
    return np.clip(np.floor(pixels + 0.5), 0, 255).astype(np.uint8)
