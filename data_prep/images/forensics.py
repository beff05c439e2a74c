"""Numbers that could betray an edited picture without a look at what it shows; for the audit of image pairs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# Steps of luminance: below the first one a difference is noise, above it an edge.
_EDGE = 24.0


def image_features(data: bytes) -> dict[str, float]:
    """Content-free features of an encoded picture: finite numbers, the same names for every one. Raises
    ImageRejected: the bytes are no picture that may be opened."""
    from data_prep.images.store import open_image

    return picture_features(open_image(data)) | {"bytes": float(len(data))}


def picture_features(image: Image.Image) -> dict[str, float]:
    """The features of :func:`image_features` that pixels alone give, of an RGB picture."""
    from scipy import ndimage

    levels = np.asarray(image)
    light = levels @ (0.299, 0.587, 0.114)
    residual = light - ndimage.median_filter(light, 3, mode="nearest")
    down, right = (np.abs(np.diff(light, axis=axis)) for axis in (0, 1))
    steps = np.concatenate([down.ravel(), right.ravel()])
    counts = np.unique(levels.reshape(-1, 3), axis=0, return_counts=True)[1]
    shares = counts / light.size
    return {
        "width": float(image.width),
        "height": float(image.height),
        "png_bytes": float(_size(image, format="PNG", compress_level=6)),
        "jpeg_bytes": float(_size(image, format="JPEG", quality=90)),
        "noise_energy": float(np.mean(residual**2)),
        "noise_median": float(np.median(np.abs(residual))),
        "high_frequency_share": _high_frequencies(light),
        "blockiness": _blockiness(down, right),
        "sharpness": float(ndimage.laplace(light, mode="nearest").var()),
        "steepest": float(steps.max(initial=0.0)),
        "colours": float(len(counts)),
        "colour_entropy": float(-(shares * np.log2(shares)).sum()),
        "rare_colours": float((counts == 1).sum() / len(counts)),
        "edges": float((steps > _EDGE).sum() / (2 * light.size)),
        "small_steps": float(((steps > 0.5) & (steps <= _EDGE)).sum() / (2 * light.size)),
        "odd_levels": float(np.mean(levels & 1)),
        "saturated": float(np.mean((levels == 0) | (levels == 255))),
    }


def _size(image: Image.Image, **options: object) -> int:
    target = io.BytesIO()
    image.save(target, **options)
    return target.tell()


def _high_frequencies(light: np.ndarray) -> float:
    """Share of the energy (without the mean) above half the Nyquist frequency."""
    energy = np.abs(np.fft.rfft2(light - light.mean())) ** 2
    down = np.abs(np.fft.fftfreq(light.shape[0]))[:, None]
    right = np.fft.rfftfreq(light.shape[1])[None, :]
    whole = energy.sum()
    return float(energy[np.maximum(down, right) > 0.25].sum() / whole) if whole > 1e-6 else 0.0


def _blockiness(down: np.ndarray, right: np.ndarray) -> float:
    """How much steeper the picture is across the borders of 8x8 blocks than elsewhere; 0 for none.

    A flat picture has no steps at all, so the ratio gets a floor.
    """
    ratios = []
    for steps in (down, right.T):
        border = np.arange(len(steps)) % 8 == 7
        if border.any() and not border.all():
            ratios.append((steps[border].mean() + 0.05) / (steps[~border].mean() + 0.05))
    return float(np.mean(ratios) - 1) if ratios else 0.0
