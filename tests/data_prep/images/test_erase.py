"""What is erased leaves its ground and puts nothing in: grounds and objects made here, looked at by means of edges."""

from __future__ import annotations

import asyncio

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from data_prep.images.edit.check import check_edit
from data_prep.images.edit.plan import EditPlan, mask_bytes, region_of
from data_prep.images.edit.procedural import ProceduralEditor

HIGH, WIDE = 200, 280
Y, X = np.mgrid[:HIGH, :WIDE]


def picture(pixels):
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))


def coins(seed):
    """Structured discs in rows, close together, on a dark ground of uneven light with grain."""
    rng = np.random.default_rng(seed)
    pixels = 40 + 40 * X / WIDE + 20 * (Y / HIGH) ** 2 + ndimage.gaussian_filter(rng.normal(0, 6, X.shape), 0.7)
    masks = []
    for row in range(3):
        for column in range(4):
            y, x, r = 36 + 64 * row + rng.integers(-3, 4), 38 + 68 * column + rng.integers(-3, 4), rng.integers(20, 29)
            share = np.clip(r - np.hypot(Y - y, X - x) + 0.5, 0, 1)
            relief = ndimage.gaussian_filter(rng.normal(0, 1, X.shape), 2)
            pixels = pixels * (1 - share) + (165 + 25 * relief / relief.std()) * share
            masks.append(share > 0.3)
    return picture(np.repeat(pixels[..., None], 3, 2)), masks[int(rng.integers(len(masks)))]


def on(ground):
    """A disc on a ground."""

    def made(seed):
        rng = np.random.default_rng(seed)
        y, x, r = rng.integers(60, HIGH - 60), rng.integers(60, WIDE - 60), rng.integers(12, 26)
        share = np.clip(r - np.hypot(Y - y, X - x) + 0.5, 0, 1)[..., None]
        return picture(ground(rng) * (1 - share) + rng.integers(0, 256, 3) * share), share[..., 0] > 0.3

    return made


def gradient(rng):
    low, high = rng.integers(30, 226, (2, 3))
    course = (X / WIDE, np.hypot(X - 140, Y - 100) / 175, X * Y / (WIDE * HIGH))[int(rng.integers(3))]
    return low + (high - low) * course[..., None] + rng.normal(0, 3 * int(rng.integers(2)), (HIGH, WIDE, 3))


def gravel(rng):
    """Cells of different greys with dark joints."""
    points = rng.integers(0, (HIGH, WIDE), (600, 2))
    distance, nearest = ndimage.distance_transform_edt(~_marked(points), return_indices=True)
    grey = rng.normal(135, 30, (HIGH, WIDE))[tuple(nearest)]
    return (grey - 4 * distance + rng.normal(0, 3, grey.shape))[..., None] * np.ones(3)


def _marked(points):
    marked = np.zeros((HIGH, WIDE), dtype=bool)
    marked[tuple(points.T)] = True
    return marked


def text(seed):
    rng = np.random.default_rng(seed)
    image = picture(225 - 30 * X[..., None] / WIDE + rng.normal(0, 2, (HIGH, WIDE, 1)) * np.ones(3))
    words, target = "the coins lie on dark ground and we label every region here".split(), int(rng.integers(12, 30))
    x, y, mask = 10, 10, Image.new("L", image.size)
    for number in range(45):
        font, word = ImageFont.load_default(15), str(rng.choice(words))
        long = font.getlength(word)
        if x + long > WIDE - 10:
            x, y = 10, y + 21
        ImageDraw.Draw(image).text((x, y), word, fill=(30, 30, 40), font=font)
        if number == target:
            ImageDraw.Draw(mask).text((x, y), word, fill=255, font=font)
        x += int(long) + 7
    return image, cv2.dilate((np.asarray(mask) > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def icons(seed):
    rng = np.random.default_rng(seed)
    image, masks = Image.new("RGB", (WIDE * 2, HIGH * 2), (235, 240, 245)), []
    for number in range(12):
        before, r = np.asarray(image).copy(), int(rng.integers(30, 48))
        x, y, colour = 70 + 140 * (number % 4), 66 + 132 * (number // 4), tuple(rng.integers(0, 200, 3).tolist())
        draw = ImageDraw.Draw(image)
        if number % 3:
            draw.rounded_rectangle((x - r, y - r, x + r, y + r), 10, fill=colour)
            draw.line((x - r // 2, y, x + r // 2, y), fill=(255, 255, 255), width=8)
        else:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        masks.append((np.asarray(image) != before).any(axis=2))
    mask = Image.fromarray(masks[int(rng.integers(12))]).resize((WIDE, HIGH), Image.Resampling.NEAREST)
    return image.resize((WIDE, HIGH), Image.Resampling.BILINEAR), np.asarray(mask)


def erased(image, mask):
    plan = EditPlan(operation="erase", new_answer="0", mask=mask_bytes(mask), region=region_of(mask, 6))
    edited = asyncio.run(ProceduralEditor().edit(image, plan, 1))
    return edited, check_edit(image, edited, plan.region, mask).reason


def edges(image, mask):
    """Pixels of edges well inside of a mask; shares nothing with the check."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    smooth = cv2.GaussianBlur(np.asarray(image), (0, 0), 1.2)
    return max(int((cv2.Canny(smooth[..., band].copy(), 20, 50) > 0)[inner].sum()) for band in range(3))


@pytest.mark.parametrize("kind", [coins, on(gradient), text, icons], ids=["coins", "gradient", "text", "icons"])
def test_nothing_is_put_in(kind):
    passed = 0
    for seed in range(25):
        image, mask = kind(seed)
        edited, reason = erased(image, mask)
        assert edges(edited, mask) <= 6, seed
        passed += reason is None
    # What is rejected is rejected for something else: the fill is good.
    assert passed >= 20


def test_a_texture_goes_on_or_the_edit_is_refused():
    passed = 0
    for seed in range(12):
        image, mask = on(gravel)(seed)
        edited, reason = erased(image, mask)
        if reason is None:
            # As many edges as the same place of such grounds has.
            there = [edges(picture(gravel(np.random.default_rng(seed + 100 * more))), mask) for more in range(1, 9)]
            assert 0.5 * min(there) <= edges(edited, mask) <= 1.5 * max(there), seed
            passed += 1
    assert passed >= 6


def test_the_check_finds_what_another_editor_puts_in():
    for seed in range(10):
        image, mask = coins(seed)
        other = np.array(erased(image, mask)[0])
        good = Image.fromarray(other)
        left, top, right, bottom = region_of(mask)
        # Another coin, or a part of one; an even smear is none.
        y, x = (top + bottom) // 2, (left + right) // 2
        for radius in (5, 12):
            share = np.clip(radius - np.hypot(Y - y, X - x) + 0.5, 0, 1)[..., None]
            bad = picture(other * (1 - share) + 170 * share)
            found = check_edit(image, bad, region_of(mask, 6), mask)
            assert found.measures["foreign"] == 1, (seed, radius)
            assert found.reason is not None
        assert check_edit(image, good, region_of(mask, 6), mask).measures["foreign"] == 0
    image, mask = on(gravel)(3)
    smear = np.array(image)
    smear[mask] = smear[~mask].mean(axis=0)
    assert check_edit(image, Image.fromarray(smear), region_of(mask, 6), mask).measures["foreign"] == 1
