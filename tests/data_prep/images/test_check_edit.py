"""The check of edits against planted faults, and against good edits of flat and of textured pictures."""

from __future__ import annotations

import asyncio
import io
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageEnhance, ImageFilter
from pydantic import ValidationError
from scipy import ndimage

from data_prep.images.edit.check import check_edit
from data_prep.images.edit.plan import EditPlan, NotEdited, mask_bytes, region_of, union
from data_prep.images.edit.procedural import ProceduralEditor

SIZE = (180, 240)
MASK = ((np.mgrid[: SIZE[0], : SIZE[1]][0] - 80) / 22) ** 2 + ((np.mgrid[: SIZE[0], : SIZE[1]][1] - 90) / 28) ** 2 <= 1
REGION = region_of(MASK, 6)
EDITS = {
    "recolour": {"colour": [40, 90, 200]},
    "erase": {},
    "move": {"by": [70, 30]},
    "replace": {"figure": "rectangle", "colour": [60, 160, 60], "box": [66, 62, 114, 98]},
    "add": {"figure": "triangle", "colour": [60, 160, 60], "box": [140, 20, 190, 60]},
    "reletter": {"text": "No 7", "colour": [250, 250, 250]},
}


def texture(seed):
    rng, total = np.random.default_rng(seed), np.zeros((*SIZE, 3))
    for width, strength in ((24, 40), (8, 25), (3, 12), (0.8, 10)):
        grey = ndimage.gaussian_filter(rng.standard_normal(SIZE), width)[..., None]
        colour = ndimage.gaussian_filter(rng.standard_normal((*SIZE, 3)), (width, width, 0))
        total += strength * (grey / grey.std() + 0.4 * colour / colour.std())
    return 125 + total


@lru_cache
def photo(seed):
    """A textured ellipse with a soft edge on a textured ground."""
    share = ndimage.gaussian_filter(MASK.astype(float), 0.7)[..., None]
    thing = np.array([190, 70, 60]) + 0.4 * (texture(seed + 50) - 125)
    return Image.fromarray(np.clip(texture(seed) * (1 - share) + thing * share, 0, 255).astype(np.uint8))


def flat(_):
    share = ndimage.gaussian_filter(MASK.astype(float), 0.6)[..., None]
    return Image.fromarray((np.array([240, 235, 230]) * (1 - share) + np.array([200, 30, 30]) * share).astype(np.uint8))


def plan_for(operation, **changes):
    region = REGION
    if operation == "move":
        region = union(REGION, tuple(side + step for side, step in zip(REGION, (70, 30, 70, 30), strict=True)))
    if operation == "add":
        region = (136, 16, 194, 64)
    mask = None if operation == "add" else mask_bytes(MASK)
    fields = {
        "operation": operation,
        "new_answer": "x",
        "region": region,
        "mask": mask,
        "details": EDITS.get(operation, {}),
    }
    return EditPlan(**fields | changes)


def edited_by(image, plan):
    return asyncio.run(ProceduralEditor().edit(image, plan, seed=1))


@pytest.mark.parametrize("picture", [photo, flat])
@pytest.mark.parametrize("operation", EDITS)
@pytest.mark.parametrize("seed", [0, 1])
def test_good_edits_pass(picture, operation, seed):
    image, plan = picture(seed), plan_for(operation)
    edited = edited_by(image, plan)
    found = check_edit(image, edited, plan.region)
    assert found.reason is None, found
    # The picture outside of the region is the same to the bit.
    outside = np.ones(SIZE, dtype=bool)
    left, top, right, bottom = plan.region
    outside[top:bottom, left:right] = False
    assert (np.asarray(image)[outside] == np.asarray(edited)[outside]).all()


def through_jpeg(image, quality):
    target = io.BytesIO()
    image.save(target, "JPEG", quality=quality)
    return Image.open(io.BytesIO(target.getvalue())).convert("RGB")


def with_piece(image, change):
    """A rectangular piece, the region itself, put in with hard borders."""
    pixels = np.asarray(image).astype(float)
    left, top, right, bottom = REGION
    pixels[top:bottom, left:right] = change(pixels[top:bottom, left:right])
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


FAULTS = {
    "colour cast": (lambda e: e.point(lambda level: min(255, level + 6)), "colour cast"),
    "brighter": (lambda e: ImageEnhance.Brightness(e).enhance(1.04), "colour cast"),
    "contrast": (lambda e: ImageEnhance.Contrast(e).enhance(1.15), None),
    "blur": (lambda e: e.filter(ImageFilter.GaussianBlur(0.8)), "sharpness changed outside"),
    "sharpened": (lambda e: e.filter(ImageFilter.UnsharpMask(2, 60, 0)), None),
    "jpeg 75": (lambda e: through_jpeg(e, 75), None),
    "jpeg 90": (lambda e: through_jpeg(e, 90), None),
    "shifted": (lambda e: ImageChops.offset(e, 1, 0), None),
    "resized": (lambda e: e.resize((256, 192)), "size changed"),
    "resampled": (lambda e: e.resize((200, 150)).resize(e.size), None),
    "seam": (lambda e: with_piece(e, lambda piece: piece + 14), "seam at the region's border"),
    "blurred piece": (lambda e: with_piece(e, lambda piece: ndimage.gaussian_filter(piece, (2.5, 2.5, 0))), None),
    "noisy piece": (lambda e: with_piece(e, lambda p: p + np.random.default_rng(1).normal(0, 25, p.shape)), None),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_faults_are_found(fault, seed):
    image = photo(seed)
    good = edited_by(image, plan_for("recolour"))
    spoil, reason = FAULTS[fault]
    found = check_edit(image, spoil(good), REGION)
    assert found.reason is not None, found
    if reason is not None:
        assert found.reason == reason, found


def test_something_else_changed_far_away():
    image = photo(0)
    good = np.asarray(edited_by(image, plan_for("recolour"))).copy()
    good[150:175, 200:235] = good[150:175, 200:235][::-1]
    assert check_edit(image, Image.fromarray(good), REGION).reason == "changed outside the region"


def test_a_change_without_any_is_found():
    image = photo(0)
    assert check_edit(image, image, REGION).reason == "no change in the region"
    noise = np.random.default_rng(0).integers(-3, 4, (*SIZE, 3))
    barely = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    assert check_edit(image, barely, REGION).reason == "no change in the region"


def test_a_soft_edge_in_a_flat_picture_is_found():
    image = flat(0)
    good = edited_by(image, plan_for("recolour"))
    soft = with_piece(good, lambda piece: ndimage.gaussian_filter(piece, (2.5, 2.5, 0)))
    assert check_edit(image, soft, REGION).reason == "blurred in the region"


def test_a_region_that_is_the_whole_picture():
    image = photo(0)
    edited = edited_by(image, plan_for("recolour"))
    assert check_edit(image, edited, (0, 0, SIZE[1], SIZE[0])).reason is None


def test_recolouring_leaves_no_halo_of_the_old_colour():
    edited = np.asarray(edited_by(flat(0), plan_for("recolour"))).astype(float)
    ground, new = np.array([240.0, 235, 230]), np.array([40.0, 90, 200])
    share = ((edited - ground) @ (new - ground)) / ((new - ground) @ (new - ground))
    assert np.abs(edited - ground - share[..., None] * (new - ground)).max() <= 2.5


def test_erasing_a_flat_shape_leaves_the_ground_alone():
    edited = np.asarray(edited_by(flat(0), plan_for("erase")))
    assert len(np.unique(edited.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"operation": "free"}, "operation not offline"),
        ({"details": {}}, "incomplete plan"),
        ({"mask": b"nothing"}, "mask is no picture"),
        ({"mask": mask_bytes(np.ones((4, 4)))}, "mask of another size"),
        ({"mask": mask_bytes(np.zeros(SIZE))}, "empty mask"),
        ({"region": (0, 0, 9999, 10)}, "region outside the picture"),
        ({"mask": None}, "no mask"),
        ({"operation": "add", "details": {"figure": "circle", "colour": [1] * 3}, "region": None}, "no region"),
        ({"operation": "move", "details": {"by": [4000, 0]}}, "moved out of the picture"),
        ({"operation": "move", "details": {"by": None}}, "incomplete plan"),
        ({"operation": "replace", "details": {"colour": [1, 2, 3]}}, "incomplete plan"),
        ({"operation": "add", "details": {"figure": "star", "colour": [1, 2, 3]}}, "shape that cannot be drawn"),
        ({"operation": "add", "details": {"figure": "circle", "colour": [1] * 3, "box": [5, 5, 5, 9]}},
         "box outside the picture"),
        ({"operation": "reletter", "details": {"text": " "}}, "no text to write"),
        ({"operation": "reletter", "details": {"text": "x" * 900}}, "text does not fit"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_carried_out_say_why(change, reason):
    with pytest.raises(NotEdited) as error:
        edited_by(photo(0), plan_for(**{"operation": "recolour"} | change))
    assert error.value.reason == reason


@pytest.mark.parametrize("details", [{"colour": [1, 2, 999]}, {"colour": "red"}, {"box": [5, 5]}, {"by": "there"}])
def test_details_that_are_none_are_no_plan(details):
    with pytest.raises(ValidationError, match=next(iter(details))):
        plan_for("recolour", details=details)
