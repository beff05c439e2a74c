"""Pictures in every mode come out as what they show; broken ones come out as a reason."""

from __future__ import annotations

import io
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pictures import bombs, broken_ones, chunk, encoded, good_ones, noise, noisy, png
from PIL import Image, ImageFile

from data_prep.images.store import ImageLimits, ImageRejected, open_image

sizes = st.tuples(st.integers(8, 24), st.integers(8, 24))
seeds = st.integers(0, 2**32 - 1)
LOSSLESS = st.sampled_from(["PNG", "TIFF", "BMP", "WEBP"])


def opened(data: bytes, **limits) -> np.ndarray:
    image = open_image(data, ImageLimits(**limits))
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image).astype(int)


def reason(data, **limits) -> str:
    with pytest.raises(ImageRejected) as caught:
        open_image(data, ImageLimits(**limits))
    return caught.value.reason


def trouble(data: bytes) -> ImageRejected | None:
    try:
        opened(data)
    except ImageRejected as error:
        return error
    return None


@settings(max_examples=40)
@given(sizes, seeds, LOSSLESS)
def test_plain_colours_are_kept(size, seed, form):
    pixels = noise(seed, *size)
    data = encoded(Image.fromarray(pixels), form, **({"lossless": True} if form == "WEBP" else {}))
    assert (opened(data) == pixels).all()


@settings(max_examples=40)
@given(sizes, seeds, st.sampled_from(["PNG", "TIFF", "WEBP"]))
def test_transparent_parts_are_white(size, seed, form):
    pixels = noise(seed, *size, channels=4)
    data = encoded(Image.fromarray(pixels), form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    alpha = pixels[..., 3:] / 255
    assert np.abs(opened(data) - (pixels[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1


@settings(max_examples=30)
@given(sizes, seeds)
def test_grey_with_alpha_and_palettes(size, seed):
    pixels = noise(seed, *size, channels=2)
    alpha = pixels[..., 1:] / 255
    expected = pixels[..., :1] * alpha + 255 * (1 - alpha)
    assert np.abs(opened(encoded(Image.fromarray(pixels, "LA"))) - expected).max() <= 1
    palette = noise(seed + 1, 256, 1)[0]
    image = Image.fromarray(pixels[..., 0]).convert("L")
    indexed = Image.frombytes("P", image.size, image.tobytes())
    indexed.putpalette(palette.tobytes())
    assert (opened(encoded(indexed)) == palette[pixels[..., 0]]).all()
    clear = int(pixels[0, 0, 0])
    shown = np.where(pixels[..., :1] == clear, 255, palette[pixels[..., 0]])
    for form in ("PNG", "GIF"):
        assert (opened(encoded(indexed, form, transparency=clear)) == shown).all()


@settings(max_examples=30)
@given(sizes, seeds, st.sampled_from(["PNG", "TIFF"]))
def test_16_bits_of_grey_are_scaled(size, seed, form):
    values = np.random.default_rng(seed).integers(0, 65536, size[::-1], dtype=np.uint16)
    found = opened(encoded(Image.fromarray(values), form))
    assert np.abs(found[..., 0] - values / 257).max() <= 0.51
    assert (found[..., 0] == found[..., 1]).all()


def test_16_bits_of_colour_and_a_clear_grey():
    values = (np.arange(8 * 8 * 3).reshape(8, 8, 3) * 341).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    assert np.abs(opened(png(8, 8, 16, 2, rows)) - values / 257).max() <= 1
    grey = values[..., 0]
    data = png(8, 8, 16, 0, b"".join(b"\0" + row.tobytes() for row in grey))
    at = data.index(b"IDAT") - 4
    clear = data[:at] + chunk(b"tRNS", int(grey[3, 3]).to_bytes(2, "big")) + data[at:]
    assert opened(clear)[3, 3].tolist() == [255, 255, 255]
    assert opened(clear)[3, 4].tolist() == opened(data)[3, 4].tolist()


def test_16_bits_where_0_is_white():
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    data = encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert np.abs(opened(data)[..., 0] - (255 - values / 257)).max() <= 1


@settings(max_examples=20)
@given(sizes, seeds)
def test_inks_become_colours(size, seed):
    inks = noise(seed, *size, channels=4)
    expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:]) / 255
    assert np.abs(opened(encoded(Image.fromarray(inks, "CMYK"), "TIFF")) - expected).max() <= 2


def test_inks_in_jpeg():
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[..., 1] = 200
    data = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    assert np.abs(opened(data) - [255, 55, 255]).max() <= 4


TURNS = {
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2), 6: lambda p: np.rot90(p, -1), 7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}  # fmt: skip


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", [*TURNS, 0, 9])
def test_exif_turns_the_picture(form, orientation):
    blocks = noise(5, 3, 2).repeat(8, axis=0).repeat(8, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(form, {})
    found = opened(encoded(Image.fromarray(blocks), form, exif=exif, **how))
    expected = TURNS.get(orientation, TURNS[1])(blocks)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (12 if form == "JPEG" else 0)


def test_several_frames():
    more = {"save_all": True, "append_images": [noisy(2)]}
    for form in ("GIF", "PNG", "WEBP", "TIFF"):
        assert reason(encoded(noisy(1), form, **more)) == "several frames"
    # A phone's JPEG carries a preview behind the picture.
    assert np.abs(opened(encoded(noisy(1), "MPO", **more)) - opened(encoded(noisy(1), "JPEG"))).max() == 0


def test_what_is_not_taken():
    picture = noisy(1)
    for form in ("PPM", "ICO", "TGA", "PCX", "JPEG2000"):
        assert reason(encoded(picture, form)) == "unknown format"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "unknown format"
    assert reason(b"") == "unknown format"
    assert reason(encoded(picture, "WEBP", exif=b"Exif\0\0what is this")) == "damaged picture"
    assert reason(encoded(picture), max_bytes=20) == "too many bytes"
    assert reason(encoded(picture), max_pixels=16 * 12 - 1) == "too many pixels"
    assert reason(encoded(noisy(1, 7, 30))) == "too small"
    assert reason(encoded(noisy(1, 8, 900))) == "long and thin"
    assert reason(encoded(picture.convert("F"), "TIFF")) == "unknown range of values"
    assert reason(encoded(picture)[:200]) == "damaged picture"
    assert opened(encoded(picture), max_pixels=16 * 12, max_bytes=10_000).shape == (12, 16, 3)


@pytest.mark.parametrize("form", bombs())
@pytest.mark.parametrize("most", [None, 100, 10**12])
def test_bombs_are_refused_before_they_are_decoded(monkeypatch, form, most):
    decoded = []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    assert reason(bombs()[form]) == "too many pixels"
    assert decoded == []


def test_the_switches_of_pil_are_nobodys_business(monkeypatch):
    whole, cut = encoded(noisy(1)), encoded(noisy(1, 40, 40))[:900]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.open(io.BytesIO(encoded(noisy(1, 3, 3)))).load()
    assert reason(cut) == "damaged picture"
    assert (opened(whole) == np.asarray(noisy(1))).all()
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (True, 10)


def test_a_thousand_broken_pictures():
    found: Counter[str] = Counter()
    for data in broken_ones(1000):
        error = trouble(data)
        found[error.reason if error else "opened"] += 1
        assert len(str(error)) < 400
        assert "\n" not in str(error)
    assert sum(found.values()) == 1000
    assert {"damaged picture", "unknown format", "too many pixels", "several frames", "opened"} <= set(found)
    assert found["opened"] < 500


@settings(max_examples=150)
@given(st.binary(max_size=300), st.sampled_from(good_ones()), st.integers(0, 40))
def test_any_bytes_are_a_picture_or_a_reason(tail, start, kept):
    error = trouble(start[:kept] + tail)
    assert error is None or error.reason


def test_a_reason_travels_between_processes():
    error = pickle.loads(pickle.dumps(ImageRejected("too small", "1 x 1")))
    assert (error.reason, error.detail, str(error)) == ("too small", "1 x 1", "too small: 1 x 1")
