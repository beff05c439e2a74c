"""Choosing questions, editing them in parts, and what is counted; with real pictures and planted bad ones."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from easy_pictures import drawn
from measure_shape import right_answer, shapes_in
from PIL import Image, ImageFilter

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import run_parts, total
from data_prep.images.edit.plan import EditPlan, mask_bytes
from data_prep.images.edit.procedural import ProceduralEditor
from data_prep.images.edit.rules import EasyVqaRules
from data_prep.images.edit.run import (
    EditorSpec,
    EditSettings,
    ProposerSpec,
    choose_edits,
    edit_here,
    edit_part,
    make_editor,
    make_proposer,
    plan_edits,
)
from data_prep.images.forensics import image_features
from data_prep.images.item import ImageCouple, VqaItem, read_items
from data_prep.images.store import ImageStore, encoded


@pytest.fixture
def items(tmp_path):
    store, found = ImageStore(tmp_path / "store"), []
    for item, image in drawn(120, seed=4):
        name = store.put(image)
        found.append(replace(item, image=name))
        # A second question of the same picture.
        found.append(replace(item, item_id=item.item_id + "b", image=name, question="how many shapes?", answer="1"))
    return found


def edited(items, folder, work, settings):
    funnel = Funnel()
    payloads = plan_edits(choose_edits(items, settings, funnel), folder / "store", settings)
    done = run_parts(folder / work, payloads, edit_part, title="edit", workers=1, progress=False)
    funnel.add(total(done))
    funnel.check()
    return funnel, [part.path for part in done]


def test_couples_are_right_and_counts_add_up(items, tmp_path):
    funnel, paths = edited(items, tmp_path, "work", EditSettings(edits=100))
    couples, store = list(read_items(paths, ImageCouple)), ImageStore(tmp_path / "store")
    stages = {stage.name: stage for stage in funnel}
    assert list(stages) == ["choose edits", "propose", "edit", "check edit"]
    assert {stage.unit for stage in funnel} == {"questions"}
    assert stages["choose edits"].dropped == {"question not understood": 120, "not drawn": 20}
    assert stages["check edit"].left == len(couples) == 100
    assert len({couple.images[0] for couple in couples}) == 100
    for couple in couples:
        for name, answer in zip(couple.images, couple.answers, strict=True):
            assert right_answer(couple.question, shapes_in(store.open(name))) == answer
        assert couple.method == "edit"
        assert couple.provenance[1]["edited_from"] == couple.provenance[0]
        assert couple.facts["operation"] in ("recolour", "replace")
        json.dumps([couple.facts, couple.provenance])


def test_the_same_again_is_the_same_to_the_byte(items, tmp_path):
    settings = EditSettings(edits=100)
    _, once = edited(items, tmp_path, "one", settings)
    _, again = edited(items, tmp_path, "two", settings)
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]
    _, other = edited(items, tmp_path, "three", replace(settings, seed=2))
    assert once[0].read_bytes() != other[0].read_bytes()


def test_the_choice_is_spread_over_templates_and_answers(items):
    template = EasyVqaRules().template
    counts = Counter((template(one), one.answer) for one in choose_edits(items, EditSettings(edits=40), Funnel()))
    everything = Counter((template(item), item.answer) for item, _ in drawn(120, seed=4))
    # Every group gives as many as every other, unless it has no more.
    most = max(counts.values())
    assert all(counts[group] >= min(most - 1, have) for group, have in everything.items())


def test_one_edit_of_one_picture(tmp_path):
    store = ImageStore(tmp_path / "store")
    (_, image), *_ = drawn(1)
    name = store.put(image)
    colours = ("black", "gray", "red", "green", "blue", "teal")
    rows = [VqaItem(c, name, f"is there a {c} shape?", "no", "shapes", "x") for c in colours]
    funnel = Funnel()
    assert len(choose_edits(rows, EditSettings(), funnel)) == 1
    assert funnel.stage("choose edits").dropped == {"its picture is edited for another question": 5}


class Spoiling(ProceduralEditor):
    """Blurs every picture it edits."""

    async def edit(self, image, plan, seed):
        return (await super().edit(image, plan, seed)).filter(ImageFilter.GaussianBlur(1.5))


def test_an_edit_that_fails_the_check_is_dropped_and_can_be_looked_at(tmp_path):
    store, funnel = ImageStore(tmp_path / "store"), Funnel()
    chosen = [replace(item, image=store.put(image)) for item, image in drawn(8, seed=4)]
    result = edit_here(chosen, store.folder, EditSettings(), funnel, editor=Spoiling())
    assert result.couples == []
    stage = funnel.stage("check edit")
    assert stage.entered == 8 == sum(stage.dropped.values())
    for reason, samples in stage.samples.items():
        assert reason != ""
        assert len(samples) <= 3
        for sample in samples:
            original, changed = (store.open(name) for name in sample["images"])
            assert original.size == changed.size


def test_plans_that_the_source_brings(tmp_path):
    store, funnel = ImageStore(tmp_path / "store"), Funnel()
    (_, image), *_ = drawn(1)
    mask = np.abs(np.asarray(image).astype(int) - np.asarray(image)[0, 0]).max(axis=2) > 60
    plan = EditPlan(operation="erase", new_answer="0", mask=mask_bytes(mask)).model_dump(mode="json")
    rows = [
        VqaItem("1", store.put(image), "how many shapes are there?", "1", "x", "x", {"edit": plan}),
        VqaItem("2", store.put(image), "how many?", "1", "x", "x", {"edit": {"operation": "explode"}}),
        VqaItem("3", store.put(image), "how many?", "1", "x", "x", {"edit": {**plan, "new_answer": "One"}}),
        VqaItem("4", store.put(image), "how many?", "1", "x", "x"),
    ]
    result = edit_here(rows, tmp_path / "store", EditSettings(proposer=ProposerSpec(model="given")), funnel)
    (couple,) = result.couples
    assert couple.answers == ("1", "0")
    assert shapes_in(store.open(couple.images[1])) == []
    dropped = funnel.stage("propose").dropped
    assert dropped["plan not usable"] == 1
    assert dropped["no plan given"] == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_editor(EditorSpec(model="photoshop")), "photoshop"),
        (lambda: make_editor(EditorSpec(model="gemini:")), "gemini"),
        (lambda: make_proposer(ProposerSpec(model="rules:clevr")), "rules:clevr"),
        (lambda: make_editor(EditorSpec(model="openai:m", max_cost=3)), "price"),
        (lambda: make_editor(EditorSpec(model="openai:m", price_in=3)), "price"),
        (lambda: make_editor(EditorSpec(model="openai:m", base_url="ftp://x")), "ftp://x"),
    ],
)
def test_roles_that_make_no_sense(make, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"Fix:") as error:
        make()
    assert words in str(error.value)


def test_a_local_model_that_is_not_installed_says_what_to_do():
    if __import__("importlib.util").util.find_spec("diffusers"):
        pytest.skip("diffusers is installed")
    editor = make_editor(EditorSpec(model="diffusers:some/model"))
    plan = EditPlan(operation="free", new_answer="x", instruction="Paint it red.")
    with pytest.raises(ConfigError, match=r"diffusers.*Fix: pip install"):
        asyncio.run(editor.edit(Image.new("RGB", (32, 32)), plan, 1))


def test_both_pictures_are_encoded_alike_and_carry_nothing_else():
    (_, image), *_ = drawn(1)
    image.info["exif"], image.info["secret"] = b"Exif\0\0", "edited with x"
    grey = image.convert("L")
    one, other = encoded(image), encoded(grey)
    chunks = [data[12:16] for data in (one, other)]
    assert chunks == [b"IHDR", b"IHDR"]
    for data, source in ((one, image), (other, grey)):
        assert b"secret" not in data
        assert data.count(b"tEXt") + data.count(b"eXIf") + data.count(b"iCCP") == 0
        assert list(image_features(data)) == list(image_features(one))
        assert all(np.isfinite(value) for value in image_features(data).values())
        import io

        with Image.open(io.BytesIO(data)) as opened:
            assert (opened.mode, opened.info) == ("RGB", {})
            assert opened.tobytes() == source.convert("RGB").tobytes()


def test_forensic_numbers_see_blur_blocks_and_noise():
    import io

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(60, 200, (96, 96, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(1))
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=30)
    blocks = Image.open(io.BytesIO(target.getvalue())).convert("RGB")
    plain, blurred, blocky = (
        image_features(encoded(one)) for one in (picture, picture.filter(ImageFilter.GaussianBlur(2)), blocks)
    )
    assert blurred["sharpness"] < 0.5 * plain["sharpness"]
    assert blurred["noise_energy"] < plain["noise_energy"]
    assert blocky["blockiness"] > plain["blockiness"] + 0.05
