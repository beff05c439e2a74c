"""Short rows whose products are never below the cosines: most pairs are ruled out for a fraction of the work.

Turn all rows by one rotation and cut each into a head and a tail. A product of two rows is that of their heads plus
that of their tails, and the latter is at most the product of the tails' lengths (Cauchy-Schwarz). So rows of few
dimensions, ``[head, length of tail]``, have products that bound the cosines from above. The rotation to principal axes
puts as much as can be into the heads; any rotation gives a true bound.
"""

from __future__ import annotations

import numpy as np

# Below this, finding the rotation costs more than it saves.
_FEWEST_ROWS = 16_000
_FEWEST_DIMENSIONS = 64
_FITTED, _TRIED = 4096, 2048
_HEADS = (16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1280, 1536, 2048)
# Going through a block's scores costs as much as this many dimensions of its product.
_PASS = 20
_ROWS = 4096


def heads_for(vectors: np.ndarray, threshold: float, *, alone: float) -> np.ndarray | None:
    """(N, K + 1) float32 rows whose products bound those of ``vectors``, or None where whole rows are as fast.

    The bound holds up to the rounding of one float32 product of K + 1 dimensions, and 2**-22.

    Args:
        vectors: (N, D) float32 rows of length 1.
        threshold: the cosine that is looked for; decides about K.
        alone: cost of scoring one candidate, in units of scoring a pair within a block.
    """
    count, dimensions = vectors.shape
    if count < _FEWEST_ROWS or dimensions < _FEWEST_DIMENSIONS:
        return None
    drawn = np.random.default_rng(0).choice(count, _FITTED + _TRIED, replace=False)
    # Axes fitted to few rows flatter these very rows, so the bound is tried on others.
    fitted, tried = (vectors[np.sort(part)].astype(np.float64) for part in np.split(drawn, [_FITTED]))
    axes = np.linalg.eigh(fitted.T @ fitted)[1][:, ::-1]
    length = _cheapest(tried @ axes, threshold, alone)
    if length is None:
        return None
    axes = np.ascontiguousarray(axes[:, :length])
    heads = np.empty((count, length + 1), dtype=np.float32)
    for start in range(0, count, _ROWS):
        rows = vectors[start : start + _ROWS].astype(np.float64)
        turned = rows @ axes
        left = np.einsum("ij,ij->i", rows, rows) - np.einsum("ij,ij->i", turned, turned)
        heads[start : start + _ROWS, :-1] = turned
        # The head is rounded to float32; the tail has to cover at least what there is.
        tail = np.sqrt(np.maximum(left, 0) + 2.0**-40)
        heads[start : start + _ROWS, -1] = np.nextafter(tail.astype(np.float32), np.float32(2))
    return heads


def _cheapest(turned: np.ndarray, threshold: float, alone: float) -> int | None:
    """The length of heads with the least work as tried on a few rows; None if whole rows need no more."""
    dimensions = turned.shape[1]
    squares = np.cumsum(turned**2, axis=1)
    above = np.triu_indices(len(turned), 1)
    best, least = None, 0.9 * (dimensions + _PASS)
    product, done = np.zeros((len(turned), len(turned))), 0
    for length in _HEADS:
        if length + _PASS >= least:
            break
        product += turned[:, done:length] @ turned[:, done:length].T
        done = length
        tails = np.sqrt(np.maximum(squares[:, -1] - squares[:, length - 1], 0))
        share = np.mean((product + np.outer(tails, tails))[above] >= threshold)
        # A share at which whole blocks would have to be scored saves nothing.
        work = length + _PASS + min(1.0, share * alone) * dimensions
        if work < least:
            best, least = length, work
    return best
