"""Image pairs, made here and now; every image of one color."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from contextrl_verl.pairs import Context, ContrastivePair, ImageRef


def picture(color: tuple[int, int, int], width: int, height: int) -> bytes:
    """A PNG of one color."""
    return as_png(Image.new("RGB", (width, height), color))


def noise(seed: int, width: int, height: int) -> Image.Image:
    """An image of random pixels: one that a wrong order or position of its patches changes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def as_png(image: Image.Image) -> bytes:
    image.save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def image_pair(number: int, sizes: list[list[tuple[int, int]]], noisy: bool = False) -> ContrastivePair:
    """A pair of images of the given sizes, one list a context; every image has a color, or noise, of its own."""

    def content(at: int, image: int, size: tuple[int, int]) -> bytes:
        if noisy:
            return as_png(noise(100 * number + 10 * at + image, *size))
        return picture((10 * number, 50 * at, 50 * image), *size)

    contexts = [
        Context(
            kind="images",
            images=[ImageRef(bytes=content(at, image, size)) for image, size in enumerate(shown)],
        )
        for at, shown in enumerate(sizes)
    ]
    return ContrastivePair(
        pair_id=f"image{number}",
        domain="image",
        query="what is red?",
        answer="this",
        supporting=contexts[0],
        confounders=contexts[1:],
    )


def color_of(image: Image.Image) -> tuple[int, ...]:
    return image.getpixel((0, 0))
