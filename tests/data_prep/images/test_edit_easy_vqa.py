"""Edits by rule on real easy_vqa pictures, measured again by code that shares nothing with the editor."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from easy_pictures import drawn
from measure_shape import right_answer, shapes_in
from PIL import Image

from data_prep.images.edit.check import check_edit
from data_prep.images.edit.plan import NotEdited
from data_prep.images.edit.procedural import ProceduralEditor
from data_prep.images.edit.rules import COLOURS, EasyVqaRules, Thing, _box, measure
from data_prep.images.forensics import picture_features
from data_prep.images.item import VqaItem


@pytest.fixture(scope="module")
def edits():
    rules, editor = EasyVqaRules(), ProceduralEditor()
    found = []
    for item, image in drawn(260):
        plan = asyncio.run(rules.propose(item, image, 1))
        found.append((item, image, plan, asyncio.run(editor.edit(image, plan, 1))))
    return found


def test_the_second_measurement_agrees_with_the_source():
    for item, image in drawn(100, seed=5):
        assert right_answer(item.question, shapes_in(image)) == item.answer, item


def test_every_new_answer_is_right_and_every_old_one_wrong(edits):
    assert len(edits) == 260
    for item, image, plan, edited in edits:
        shapes = shapes_in(edited)
        assert len(shapes) == 1, item
        assert right_answer(item.question, shapes) == plan.new_answer != item.answer, (item, plan)
        assert right_answer(item.question, shapes_in(image)) == item.answer


def test_all_kinds_of_questions_are_among_them(edits):
    kinds = Counter()
    for item, _, plan, _ in edits:
        words = item.question.replace("?", "").split()
        negated = "not" in words or "no" in words
        kinds[words[0], negated, item.answer if item.answer in ("yes", "no") else "other"] += 1
        kinds[plan.operation] += 1
    assert min(kinds[first, negated, answer] for first in ("is", "does") for negated in (True, False)
               for answer in ("yes", "no")) >= 1  # fmt: skip
    assert kinds["what", False, "other"] >= 45
    assert set(kinds) >= {"recolour", "replace"}
    assert min(kinds["recolour"], kinds["replace"]) >= 45


def test_every_edit_passes_the_check_and_stays_in_its_region(edits):
    for item, image, plan, edited in edits:
        assert check_edit(image, edited, plan.region).reason is None, item
        left, top, right, bottom = plan.region
        same = (np.asarray(image) == np.asarray(edited)).all(axis=2)
        same[top:bottom, left:right] = True
        assert same.all()


def test_no_trace_of_the_old_colour_is_left(edits):
    """In an edited picture every pixel lies between its background and its new colour."""
    for item, _, _, edited in edits[:150]:
        pixels = np.asarray(edited).reshape(-1, 3).astype(float)
        values, counts = np.unique(pixels, axis=0, return_counts=True)
        ground = values[counts.argmax()]
        solid = max(values, key=lambda value: np.abs(value - ground).sum())
        towards = solid - ground
        share = ((pixels - ground) @ towards) / (towards @ towards)
        beside = np.abs(pixels - ground - share[:, None] * towards).max()
        assert beside <= 2.0, item


def test_the_draw_depends_on_the_seed_and_nothing_else():
    rules, first, second = EasyVqaRules(), drawn(40), drawn(40)
    draws = ((first, 1), (second, 1), (first, 2))
    plans = [[asyncio.run(rules.propose(*one, seed)) for one in some] for some, seed in draws]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("how many shapes are there?", "1", "question not understood"),
        ("what color is the shape?", "purple", "the picture does not show the answer"),
    ],
)
def test_what_is_not_edited_has_a_reason(question, answer, reason):
    (_, image), *_ = drawn(1)
    with pytest.raises(NotEdited) as error:
        asyncio.run(EasyVqaRules().propose(VqaItem("1", "1", question, answer, "shapes", "x"), image, 1))
    assert error.value.reason == reason


def test_a_photo_is_no_flat_picture():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(NotEdited, match="not a flat picture"):
        asyncio.run(EasyVqaRules().propose(VqaItem("1", "1", "is there a circle?", "no", "x", "x"), noise, 1))


def test_most_shapes_are_recoloured_by_drawing_them_again(edits):
    """Then their edges are those of the source: in the old colour again they are the old pixels."""
    recoloured = [one for one in edits if one[2].operation == "recolour"]
    again = 0
    for item, image, plan, edited in recoloured:
        if plan.details.figure is None:
            continue
        again += 1
        old = next(COLOURS[name] for name in COLOURS if plan.target.startswith(name))
        back = plan.model_copy(update={"details": plan.details.model_copy(update={"colour": old})})
        assert asyncio.run(ProceduralEditor().edit(edited, back, 1)).tobytes() == image.tobytes(), item
    assert again > 0.85 * len(recoloured)


@pytest.mark.parametrize("figure", ["circle", "rectangle", "triangle"])
def test_a_replaced_shape_is_at_the_border_as_often_as_by_chance(figure):
    """Old shapes as the source places them, at every place alike: so are the new ones."""
    rng, shape, image = Random(1), measure(drawn(1)[0][1]), Image.new("RGB", (64, 64))
    at_left, expected = [], []
    for _ in range(6000):
        side = rng.randint(16, 64)
        left, top = rng.randint(0, 127 - side) / 2, rng.randint(0, 127 - side) / 2
        old = replace(shape, thing=Thing("circle", "red"), box=(left, top, left + (side + 1) / 2, top + (side + 1) / 2))
        new = _box(figure, old, image, rng)
        assert 0 <= new[0] < new[2] <= 64
        assert 0 <= new[1] < new[3] <= 64
        at_left.append(new[0] == 0)
        expected.append(1 / (129 - 2 * (new[2] - new[0])))
    assert 0.75 < sum(at_left) / sum(expected) < 1.25


def test_an_edited_picture_cannot_be_told_by_forensic_numbers(edits):
    """A forest on all features, original against edited, whole pictures held out: chance within its noise."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GroupKFold, cross_val_score

    some = edits[:250]
    rows = [list(picture_features(one).values()) for _, image, _, edited in some for one in (image, edited)]
    labels, groups = np.tile([0, 1], len(some)), np.repeat(np.arange(len(some)), 2)
    forest = RandomForestClassifier(60, random_state=0)
    accuracy = cross_val_score(forest, np.array(rows), labels, groups=groups, cv=GroupKFold(5)).mean()
    assert abs(accuracy - 0.5) < 0.07, accuracy
