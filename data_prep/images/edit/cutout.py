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
# Unknowns of the linear system at most; a hole beyond it is filled on a coarser grid.
_MOST_UNKNOWNS = 100_000


@dataclass(frozen=True)
class Matte:
    """An object of a picture.

    Attributes:
        region: smallest one around every pixel that it touches.
        alpha: (height, width, 1) of the region: how much of a pixel it covers, 0 to 1.
        object: (height, width, 3) its colours, also where it is mixed with the surroundings.
    """

    region: Region
    alpha: np.ndarray
    object: np.ndarray

    @property
    def colour(self) -> np.ndarray:
        """Its mean colour, float (3,)."""
        return (self.object * self.alpha).sum(axis=(0, 1)) / self.alpha.sum()


def matte_of(pixels: np.ndarray, mask: np.ndarray) -> Matte:
    """Estimate coverage along the mask's edge: each pixel there is a mixture of the nearest sure colours.

    Args:
        pixels: (height, width, 3) uint8.
        mask: (height, width) bool, right to within two pixels.
    """
    left, top, right, bottom = region_of(mask, _BAND + 2)
    part, inside = pixels[top:bottom, left:right].astype(np.float64), mask[top:bottom, left:right].astype(np.uint8)
    square = np.ones((2 * _BAND + 1,) * 2, dtype=np.uint8)
    # The border of the picture is an edge as well: what lies along it may be mixed.
    sure = cv2.erode(inside, square, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    outside = cv2.dilate(inside, square) == 0
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


def mask_in(pixels: np.ndarray, region: Region) -> np.ndarray:
    """What stands out from the median colour of a region's rim, for plans without a mask: (height, width) bool.

    Raises:
        NotEdited: nothing stands out.
    """
    left, top, right, bottom = region
    part = pixels[top:bottom, left:right].astype(np.float64)
    rim = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
    distance = np.minimum(np.linalg.norm(part - np.median(rim, axis=0), axis=2), 255).astype(np.uint8)
    threshold, _ = cv2.threshold(distance, 0, 255, cv2.THRESH_OTSU)
    found = distance > max(threshold, 2 * _CONTRAST)
    if not 0.002 < found.mean() < 0.98:
        raise NotEdited("nothing stands out in the region", f"{found.mean():.1%} of it differs from its rim")
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    mask[top:bottom, left:right] = found
    return mask


def without(pixels: np.ndarray, matte: Matte) -> np.ndarray:
    """The picture with an object's place filled from around it."""
    left, top, right, bottom = matte.region
    hole = np.zeros(pixels.shape[:2], dtype=np.uint8)
    hole[top:bottom, left:right] = matte.alpha[..., 0] > _VISIBLE
    return fill(pixels, cv2.dilate(hole, np.ones((3, 3), dtype=np.uint8)) > 0)


def fill(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The picture with a hole filled.

    A donor of the hole's shape is looked for around it; the fill has the donor's detail and the colours of the hole's
    border (the membrane between them solves Laplace's equation, as in Poisson image editing; cv2.seamlessClone does
    too, but mixes in gradients of what is taken out). Without room for a donor the fill is smooth, with grain drawn
    from what is around it.

    Args:
        pixels: (height, width, 3) uint8.
        hole: (height, width) bool, true somewhere.

    Raises:
        NotEdited: there is nothing but the hole.
    """
    if hole.all():
        raise NotEdited("nothing around it to fill with")
    left, top, right, bottom = region_of(hole)
    by = max(32, 2 * max(right - left, bottom - top))
    left, top, right, bottom = clipped((left - by, top - by, right + by, bottom + by), hole.shape)
    known, hole = pixels[top:bottom, left:right], hole[top:bottom, left:right]
    part = known.astype(np.float32)
    ring = (cv2.dilate(hole.astype(np.uint8), np.ones((7, 7), dtype=np.uint8)) > 0) & ~hole
    if np.ptp(part[ring], axis=0).max() == 0:
        part[hole] = part[ring][0]  # flat ground
    elif (donor := _donor(part, hole, ring)) is not None:
        part[hole] = (donor + _membrane(part - donor, hole))[hole]
    else:
        grain = np.clip(part - cv2.medianBlur(part, 5), -16, 16)[~hole]
        drawn = np.random.default_rng(0).integers(len(grain), size=int(hole.sum()))
        part[hole] = cv2.inpaint(known, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA)[hole] + grain[drawn]
    result = pixels.copy()
    result[top:bottom, left:right][hole] = levels(part[hole])
    return result


def levels(pixels: np.ndarray) -> np.ndarray:
    """Floats as 8-bit levels."""
    return np.clip(np.floor(pixels + 0.5), 0, 255).astype(np.uint8)


def _donor(part: np.ndarray, hole: np.ndarray, ring: np.ndarray) -> np.ndarray | None:
    """The picture shifted so that what lies under the hole fits its border best; None without a place."""
    left, top, right, bottom = region_of(hole, 3)
    here = (slice(top, bottom), slice(left, right))
    under, edge = hole[here].astype(np.float32), ring[here].astype(np.float32)

    def sums(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        return cv2.matchTemplate(values, where, cv2.TM_CCORR)

    def variance(where: np.ndarray) -> np.ndarray:
        return sums(light**2, where) / where.sum() - (sums(light, where) / where.sum()) ** 2

    light = part.mean(axis=2)
    light -= light.mean()
    cost = cv2.matchTemplate(part, part[here], cv2.TM_SQDIFF, mask=edge) / (3 * edge.sum())
    # More goes on under the hole than at its edge: some object, not more of the same ground.
    cost += np.maximum(variance(under) - variance(edge), 0)
    cost[sums(hole.astype(np.float32), under + edge) > 0.5] = np.inf
    if not np.isfinite(cost).any():
        return None
    down, across = np.unravel_index(cost.argmin(), cost.shape)
    donor = np.zeros_like(part)
    donor[here] = part[down : down + bottom - top, across : across + right - left]
    return donor


def _membrane(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Values that agree with those around the hole and are as smooth as can be inside."""
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    height, width = hole.shape
    if hole.sum() > _MOST_UNKNOWNS:
        weight = (~hole).astype(np.float32)[..., None]
        half = (width + 1) // 2, (height + 1) // 2
        sums, counts = (cv2.resize(of, half, interpolation=cv2.INTER_AREA) for of in (values * weight, weight))
        small = _membrane(sums / np.maximum(counts, 1e-6)[..., None], counts < 1e-6)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    # Differences between neighbours in a row of pixels; nothing is beyond its ends.
    chains = [
        sparse.diags([-np.ones(n - 1), np.r_[1, np.full(max(n - 2, 0), 2), 1][:n], -np.ones(n - 1)], [-1, 0, 1])
        for n in (width, height)
    ]
    open_, flat = hole.ravel(), values.reshape(-1, values.shape[2]).astype(np.float64)
    rows = sparse.kronsum(*chains, format="csr")[open_].tocsc()
    flat[open_] = spsolve(rows[:, open_], -(rows[:, ~open_] @ flat[~open_]))
    return flat.reshape(values.shape).astype(np.float32)
