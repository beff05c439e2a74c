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
# Ground is looked at so many pixels around a hole; this share of them is taken to be ground. What departs from its
# course by so many times their spread, and levels, is something else, as soon as it is more than a speck of the hole.
_RING, _GROUND, _DEPARTS, _DEPARTS_LEVELS, _SPECK = 8, 0.65, 3.5, 6.0, 0.01
# Slope, in levels a pixel, up to which ground is even but for its grain: there is no texture to take from elsewhere.
_EVEN = 2.0
# Less than this share of a texture's usual slopes is a smear in it.
_BARE = 0.7


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
    hole's border. Where none is like the ground next to the hole, the fill is that ground's even course with its
    grain. (cv2.seamlessClone does alike, but mixes in gradients of what is taken out.) Raises NotEdited: there is
    nothing but the object.
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
        filled = np.broadcast_to(part[ring][0], part.shape)  # flat ground
    else:
        ground = Ground.around(part, hole)
        donor = _donor(part, hole, ring, ground.spread) if ground.slope > _EVEN else None
        filled = None if donor is None else donor + _inside(part - donor, hole, ground.foreign(part))
        if filled is None or ground.stands_out(np.where(hole[..., None], filled, part), hole):
            grain, foreign = grain_of(part), ground.foreign(part)
            filled = ground.course + _inside(part - ground.course - grain, hole, foreign)
            filled += _mirrored(grain, hole, ~hole & ~grown(foreign, 1))
    result = pixels.copy()
    result[top:bottom, left:right][hole] = levels(filled[hole])
    return result


def _inside(values: np.ndarray, hole: np.ndarray, foreign: np.ndarray) -> np.ndarray:
    """Float32 values (height, width, 3), drawn on into a hole from its border; a neighbour that lies there is not."""
    unknown = (hole | (foreign & grown(hole, _RING))).astype(np.uint8)
    return np.dstack([cv2.inpaint(one, unknown, 5, cv2.INPAINT_TELEA) for one in cv2.split(values.astype(np.float32))])


def _mirrored(grain: np.ndarray, hole: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Grain for a hole: that on the other side of its border where that is known, and no stronger than usual."""
    from scipy import ndimage

    places = ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
    rows, columns = (
        np.clip(2 * border - own, 0, size - 1)
        for border, own, size in zip(places, np.indices(hole.shape), hole.shape, strict=True)
    )
    usual = np.median(np.abs(grain[known]), axis=0) if known.any() else 0.0
    return np.clip(grain[rows, columns] * known[rows, columns, None], -3 * usual, 3 * usual)


@dataclass(frozen=True)
class Ground:
    """What an object lies on: its even ``course`` (height, width, 3), a surface of the second degree; how far most of
    what is next to the object departs from it, and how steep that usually is, both in levels."""

    course: np.ndarray
    spread: float
    slope: float

    @classmethod
    def around(cls, pixels: np.ndarray, hole: np.ndarray) -> Ground:
        """The ground of a ring of 8 pixels, not empty; neighbours on less than a third of it have no say."""
        ring = grown(hole, _RING) & ~hole
        x, y = np.linspace(-1, 1, hole.shape[1])[None, :, None], np.linspace(-1, 1, hole.shape[0])[:, None, None]
        # What a picture's border cuts off has no course to be seen.
        edges = hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any()
        terms = [np.ones((1, 1, 1)), x, y, *([] if edges else [x * x, x * y, y * y])]
        wanted = np.stack([np.broadcast_to(term, (*hole.shape, 1))[ring, 0] for term in terms], axis=1)
        known = pixels[ring].astype(np.float64)
        kept = np.ones(len(known), dtype=bool)
        for _ in range(10):
            weights = np.linalg.lstsq(wanted[kept], known[kept], rcond=None)[0]
            off = np.abs(known - wanted @ weights).max(axis=1)
            spread = float(np.quantile(off, _GROUND))
            kept = off <= spread
        course = sum(term * weight for term, weight in zip(terms, weights, strict=True)).astype(np.float32)
        return cls(course, spread, float(np.median(_slopes(pixels)[ring][kept])))

    def foreign(self, pixels: np.ndarray) -> np.ndarray:
        """Where a picture (height, width) is not like the ground; grain is averaged out."""
        off = cv2.blur(pixels - self.course, (3, 3), borderType=cv2.BORDER_REPLICATE)
        return np.abs(off).max(axis=2) > _DEPARTS * self.spread + _DEPARTS_LEVELS

    def stands_out(self, pixels: np.ndarray, hole: np.ndarray) -> bool:
        """Whether what lies in a hole is not like the ground: another thing, or a smear in a texture."""
        smear = np.median(_slopes(pixels)[hole]) < _BARE * self.slope - 0.5
        return bool(smear or self.foreign(pixels)[hole].mean() > _SPECK)


def _slopes(pixels: np.ndarray) -> np.ndarray:
    """(height, width) how steep a picture is, but for its grain, in levels."""
    return np.hypot(*np.gradient(cv2.GaussianBlur(pixels.mean(axis=2), (0, 0), 1)))


def _donor(part: np.ndarray, hole: np.ndarray, ring: np.ndarray, spread: float) -> np.ndarray | None:
    """The picture shifted so that what lies under the hole fits its border best; None if nothing fits."""
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
    # Two pieces of one texture differ by twice its variance, which is a little more than the spread's square.
    if not cost.min() <= 3 * spread**2:
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
