"""Fills a hole in a picture: texture from a place nearby, fitted to the hole's border without a seam."""

from __future__ import annotations

import numpy as np

from data_prep.images.edit.plan import region_of

# Unknowns of the linear system at most; a hole beyond it is filled on a coarser grid first.
_MOST_UNKNOWNS = 150_000


def fill(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The picture with the hole filled.

    A donor of the hole's shape is looked for around it; the fill has the donor's detail and the colours of the hole's
    border (the membrane between them solves Laplace's equation, as in Poisson image editing). Without room for a
    donor the fill is smooth, with the grain of what is around it.

    Args:
        pixels: (height, width, 3) float.
        hole: (height, width) bool.

    Returns:
        (height, width, 3) float; outside of the hole as given.
    """
    if not hole.any():
        return pixels.copy()
    filled = pixels.copy()
    ring = _ring(hole)
    if ring.any() and np.ptp(pixels[ring], axis=0).max() == 0:
        filled[hole] = pixels[ring][0]  # flat ground
        return filled
    donor = _donor(pixels, hole, ring)
    left, top, right, bottom = region_of(hole, 1)
    inside = (slice(top, bottom), slice(left, right))
    filled[inside] = donor[inside] + _membrane((pixels - donor)[inside], hole[inside])
    filled[~hole] = pixels[~hole]
    return filled


def _ring(hole: np.ndarray) -> np.ndarray:
    """Three pixels around the hole."""
    from scipy import ndimage

    return ndimage.binary_dilation(hole, np.ones((3, 3), dtype=bool), iterations=3) & ~hole


def _donor(pixels: np.ndarray, hole: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """The picture shifted so that what lies under the hole fits its border best; without a place mirrored grain."""
    height, width = hole.shape
    left, top, right, bottom = region_of(hole, 3)
    tall, wide = bottom - top, right - left
    best, found = np.inf, None
    for down, across in _shifts(tall, wide):
        if not (0 <= top + down and bottom + down <= height and 0 <= left + across and right + across <= width):
            continue
        at = (slice(top + down, bottom + down), slice(left + across, right + across))
        under, edge = hole[top:bottom, left:right], ring[top:bottom, left:right]
        if hole[at][under | edge].any():
            continue
        apart = pixels[top:bottom, left:right][edge] - pixels[at][edge]
        # An even difference of light does not matter, the membrane takes it away.
        cost = float(((apart - apart.mean(axis=0)) ** 2).mean())
        # More goes on under the hole than at its edge: some object, not more of the same ground.
        cost += max(0.0, float(pixels[at][under].var(axis=0).mean() - pixels[at][edge].var(axis=0).mean()))
        if cost < best:
            best, found = cost, (down, across)
    if found is None:
        return _mirrored_grain(pixels, hole)
    donor = np.zeros_like(pixels)
    down, across = found
    donor[top:bottom, left:right] = pixels[top + down : bottom + down, left + across : right + across]
    return donor


def _mirrored_grain(pixels: np.ndarray, hole: np.ndarray, width: float = 4.0) -> np.ndarray:
    """Fine detail of the known pixels; inside the hole that of the place mirrored at the hole's border."""
    from scipy import ndimage

    known = (~hole).astype(np.float64)
    weight = np.maximum(ndimage.gaussian_filter(known, width), 1e-6)[..., None]
    smooth = ndimage.gaussian_filter(pixels * known[..., None], (width, width, 0)) / weight
    grain = np.where(hole[..., None], 0.0, pixels - smooth)
    if not np.abs(grain).max() > 0:
        return grain
    rows, columns = ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
    height, wide = hole.shape
    here = np.indices(hole.shape)
    rows, columns = 2 * rows - here[0], 2 * columns - here[1]
    # At the picture's border: back and forth inside of it.
    return grain[_folded(rows, height), _folded(columns, wide)]


def _folded(index: np.ndarray, length: int) -> np.ndarray:
    index = np.mod(index, 2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def _shifts(tall: int, wide: int) -> list[tuple[int, int]]:
    steps = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    found = {(round(a * tall), round(b * wide)) for a in steps for b in steps if max(abs(a), abs(b)) >= 1}
    return sorted(found, key=lambda shift: (shift[0] ** 2 + shift[1] ** 2, shift))


def _membrane(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Values that agree with those around the hole and are as smooth as can be inside (zero gradient at the border
    of the picture)."""
    count = int(hole.sum())
    known = values[~hole]
    if len(known) == 0:
        return values
    if np.ptp(known, axis=0).max() == 0:
        result = values.copy()
        result[hole] = known[0]
        return result
    if count > _MOST_UNKNOWNS:
        return _coarse(values, hole)
    return _solve(values, hole, count)


def _solve(values: np.ndarray, hole: np.ndarray, count: int) -> np.ndarray:
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    height, width = hole.shape
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(count)
    rows, columns = np.nonzero(hole)
    diagonal, right_side = np.zeros(count), np.zeros((count, values.shape[2]))
    here, there = [], []
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        y, x = rows + down, columns + across
        exists = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        diagonal += exists
        y, x, own = y[exists], x[exists], np.nonzero(exists)[0]
        unknown = hole[y, x]
        here.append(own[unknown])
        there.append(number[y[unknown], x[unknown]])
        np.add.at(right_side, own[~unknown], values[y[~unknown], x[~unknown]])
    here, there = np.concatenate(here), np.concatenate(there)
    matrix = sparse.csc_matrix((-np.ones(len(here)), (here, there)), shape=(count, count)) + sparse.diags(diagonal)
    result = values.copy()
    result[hole] = spsolve(matrix.tocsc(), right_side).reshape(count, -1)
    return result


def _coarse(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The same on a grid of half the size, spread out again."""
    from scipy import ndimage

    height, width = hole.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    open_ = np.pad(hole, ((0, height % 2), (0, width % 2)), mode="edge")
    weight = (~open_).astype(np.float64)
    blocks = weight.reshape(len(weight) // 2, 2, -1, 2).sum(axis=(1, 3))
    sums = (even * weight[..., None]).reshape(len(weight) // 2, 2, -1, 2, even.shape[2]).sum(axis=(1, 3))
    small = _membrane(sums / np.maximum(blocks, 1)[..., None], blocks == 0)
    result = values.copy()
    result[hole] = ndimage.zoom(small, (2, 2, 1), order=1)[:height, :width][hole]
    return result
