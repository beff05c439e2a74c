"""The built-in descriptor and the rule for the same picture: what is close, what is far, what does not matter."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from data_prep.images.embed.parts import Embeddings, look, make_embedder, perceptual_hash, unit_rows
from data_prep.images.retrieve import SAME_HASH, SAME_LOOK


def shape(form: str, colour: str, box=(14, 20, 40, 46), ground="#f4f0e8", side=64) -> Image.Image:
    image = Image.new("RGB", (64, 64), ground)
    getattr(ImageDraw.Draw(image), form)(box, fill=colour)
    return image if side == 64 else image.resize((side, side), Image.Resampling.NEAREST)


def landscape(seed: int) -> Image.Image:
    """Smooth noise in colours: as much structure as a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(6))
    low, high = np.percentile(np.asarray(image), [1, 99])
    return image.point(lambda value: max(0, min(255, int((value - low) / (high - low) * 255))))


def encoded_again(image: Image.Image, form: str, **how) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, form, **how)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def cosine(one: Image.Image, other: Image.Image) -> float:
    a, b = unit_rows(make_embedder("descriptor"), [one, other]).astype(np.float64)
    return float(a @ b)


def test_rows_do_not_depend_on_the_batch_and_any_picture_has_one():
    embedder = make_embedder("descriptor")
    pictures = [landscape(0), Image.new("RGB", (3, 900), "white"), Image.new("RGB", (1, 1)), Image.new("RGB", (500, 9))]
    together = unit_rows(embedder, pictures)
    assert (together.dtype, together.shape) == (np.float32, (4, 328))
    np.testing.assert_allclose(np.linalg.norm(together.astype(np.float64), axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(together, np.concatenate([unit_rows(embedder, [picture]) for picture in pictures]))


def test_vectors_are_the_same_on_every_machine():
    vector = unit_rows(make_embedder("descriptor"), [shape("ellipse", "#a52a2a")])[0].astype(np.float64)
    assert np.round(vector @ np.cos(np.arange(len(vector))), 5) == pytest.approx(PINNED, abs=2e-5)


PINNED = -1.01297


def test_alike_is_close_and_unlike_is_far():
    circle = shape("ellipse", "#a52a2a")
    assert cosine(circle, shape("ellipse", "#a52a2a", (15, 21, 41, 47))) > 0.95
    assert cosine(circle, shape("ellipse", "#a52a2a", ground="#eef2f4")) > 0.8
    assert cosine(circle, shape("rectangle", "#a52a2a")) > 0.75
    assert cosine(circle, shape("ellipse", "#0000ff", (40, 4, 60, 24))) < 0.5
    others = [cosine(landscape(0), landscape(seed)) for seed in range(1, 8)]
    assert max(others) < 0.6
    assert cosine(landscape(0), encoded_again(landscape(0), "JPEG", quality=60)) > 0.98
    assert cosine(landscape(0), landscape(0).resize((200, 150))) > 0.98


def test_a_shape_as_bright_as_its_ground_is_seen():
    grey, red = Image.new("RGB", (64, 64), (76, 76, 76)), shape("ellipse", (255, 0, 0), ground=(76, 76, 76))
    assert cosine(grey, red) < 0.7


def apart(*pictures: Image.Image) -> tuple[int, int]:
    """Bits and levels between two pictures."""
    hashes = np.array([perceptual_hash(image) for image in pictures], np.uint64)
    found = Embeddings("e", ["a", "b"], np.zeros((2, 1)), hashes, np.stack([look(image) for image in pictures]))
    bits, levels = found.apart(np.array([0]), np.array([1]))
    return int(bits[0]), int(levels[0])


def same(one: Image.Image, other: Image.Image) -> bool:
    bits, levels = apart(one, other)
    return bits <= SAME_HASH and levels <= SAME_LOOK


@pytest.mark.parametrize("how", [("JPEG", 90), ("JPEG", 60), ("WEBP", 70), ("PNG", None)])
@pytest.mark.parametrize("seed", range(3))
def test_a_picture_encoded_again_is_the_same_picture(seed, how):
    form, quality = how
    again = encoded_again(landscape(seed), form, **({} if quality is None else {"quality": quality}))
    assert same(landscape(seed), again)
    assert same(landscape(seed), again.resize((240, 180), Image.Resampling.LANCZOS))


def test_flat_drawings_that_differ_in_a_colour_or_a_shape_are_other_pictures():
    circle = shape("ellipse", "#a52a2a")
    assert not same(circle, shape("ellipse", "#808080"))
    assert not same(circle, shape("rectangle", "#a52a2a"))
    assert not same(circle, shape("ellipse", "#a52a2a", (20, 20, 46, 46)))
    assert same(circle, circle.copy())
    # The hash by itself would call two of them the same picture.
    assert apart(circle, shape("ellipse", "#808080"))[0] <= 4


def test_distances_are_counted_in_bits_and_levels():
    looks = np.zeros((3, 768), np.uint8)
    looks[0, 5], looks[1, 7] = 200, 255
    found = Embeddings("e", ["a", "b", "c"], np.zeros((3, 1)), np.array([0, 2**64 - 1, 1], np.uint64), looks)
    bits, levels = found.apart(np.array([0, 0, 1]), np.array([1, 2, 2]))
    assert (bits.tolist(), levels.tolist()) == ([64, 1, 63], [255, 200, 255])
    assert [part.tolist() for part in found.apart(*np.zeros((2, 0), np.int64))] == [[], []]
