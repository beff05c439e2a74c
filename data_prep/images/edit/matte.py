"""From a rough mask to what covers each pixel by how much, so that edges keep their softness when a colour changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.images.edit.plan import NotEdited, Region, clipped, region_of

# Pixels on both sides of a mask's edge in which object and surroundings may be mixed.
_BAND = 2
# Two colours closer than this (levels) cannot be told apart in a mixture.
_CONTRAST = 6.0


@dataclass(frozen=True)
class Matte:
    """An object of a picture.

    Attributes:
        alpha: (height, width) 0 to 1, how much of a pixel it covers.
        object: (height, width, 3) its colours, also where it is mixed with the surroundings.
        surroundings: (height, width, 3) colours of what is next to it, as far as its edge; the picture elsewhere.
    """

    alpha: np.ndarray
    object: np.ndarray
    surroundings: np.ndarray

    @property
    def colour(self) -> np.ndarray:
        """Its mean colour, float (3,)."""
        return (self.object * self.alpha[..., None]).sum(axis=(0, 1)) / self.alpha.sum()


def matte_of(pixels: np.ndarray, mask: np.ndarray) -> Matte:
    """Estimate coverage along the mask's edge: each pixel there is a mixture of the nearest sure colours.

    Args:
        pixels: (height, width, 3) float.
        mask: (height, width) bool, right to within two pixels.
    """
    from scipy import ndimage

    left, top, right, bottom = clipped(region_of(mask, _BAND + 2), mask.shape)
    part, inside = pixels[top:bottom, left:right], mask[top:bottom, left:right]
    square = np.ones((3, 3), dtype=bool)
    sure = ndimage.binary_erosion(inside, square, iterations=_BAND)
    if not sure.any():
        # A thin object has no inner pixels: its farthest ones from the edge have to do.
        depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        sure = depth >= depth.max()
    outside = ~ndimage.binary_dilation(inside, square, iterations=_BAND)
    alpha = sure.astype(np.float64)
    own, around = part.copy(), part.copy()
    band = ~(sure | outside)
    if outside.any():
        own[band] = _nearest(part, sure)[band]
        far = _nearest(part, outside)
        around[~outside] = far[~outside]
        apart = own[band] - around[band]
        length = (apart**2).sum(axis=1)
        share = ((part[band] - around[band]) * apart).sum(axis=1) / np.maximum(length, 1e-9)
        # Colours alike: the mask's own word.
        alpha[band] = np.where(length > _CONTRAST**2, np.clip(share, 0.0, 1.0), inside[band])
    else:
        alpha[band] = inside[band]
    whole = np.zeros(mask.shape)
    whole[top:bottom, left:right] = alpha
    objects, surroundings = pixels.copy(), pixels.copy()
    objects[top:bottom, left:right], surroundings[top:bottom, left:right] = own, around
    return Matte(whole, objects, surroundings)


def _nearest(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """For every pixel the colour of the nearest known one, a little smoothed among the known."""
    from scipy import ndimage

    weight = ndimage.uniform_filter(known.astype(np.float64), 3, mode="constant")
    smooth = [ndimage.uniform_filter(pixels[..., i] * known, 3, mode="constant") for i in range(3)]
    smooth = np.stack(smooth, axis=-1) / np.maximum(weight, 1e-9)[..., None]
    rows, columns = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return smooth[rows, columns]


def mask_in(pixels: np.ndarray, region: Region) -> np.ndarray:
    """What stands out from the background in a region, for plans without a mask.

    The background is the median colour of the region's rim; the threshold is Otsu's.

    Raises:
        NotEdited: nothing stands out.
    """
    left, top, right, bottom = region
    part = pixels[top:bottom, left:right].astype(np.float64)
    rim = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
    distance = np.sqrt(((part - np.median(rim, axis=0)) ** 2).sum(axis=2))
    found = distance > max(_otsu(distance), 2 * _CONTRAST)
    share = found.mean()
    if not 0.002 < share < 0.98:
        raise NotEdited("nothing stands out in the region", f"{share:.1%} of it differs from its rim")
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    mask[top:bottom, left:right] = found
    return mask


def _otsu(values: np.ndarray) -> float:
    """The threshold between two groups of values that are most unlike each other."""
    counts, edges = np.histogram(values, bins=128)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(np.where(above > 0, between, np.nan)))])
