"""Image editors and the proposer in front of a real HTTP server that misbehaves."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import numpy as np
import pytest
from aiohttp import web
from chat_server import HANG, KEY, RESET, alone, completion, failure
from picture_server import BOX, PictureServer, gemini_answer, openai_answer, png, recoloured, scene, sent_picture
from PIL import Image, ImageFilter

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.images.edit.plan import EditPlan, NotEdited, NotReached
from data_prep.images.edit.run import EditorSpec, EditSettings, ProposerSpec, edit_here, estimate, make_editor
from data_prep.images.item import VqaItem
from data_prep.images.store import ImageStore

REGION = (34, 24, 86, 76)
PLAN = EditPlan(operation="recolour", new_answer="blue", instruction="Make the red square blue.", region=REGION)
ANSWERS = {"openai": openai_answer, "gemini": gemini_answer}


@pytest.fixture
def server(monkeypatch):
    alone(monkeypatch)
    with PictureServer() as running:
        yield running


@pytest.fixture(params=["openai", "gemini"])
def kind(request):
    return request.param


def good(kind):
    return lambda number, body: ANSWERS[kind](png(recoloured(sent_picture(body))))


def role_of(kind, server, tmp_path, **options):
    base = server.url if kind == "openai" else server.url.removesuffix("/v1")
    options = {"price": 0.04, "timeout": 20.0, "cache": tmp_path / "cache"} | options
    return EditorSpec(model=f"{kind}:m", base_url=base, key_variable="CONTEXTRL_TEST_KEY", **options)


def editor_of(kind, server, tmp_path, tries=3, **options):
    return make_editor(role_of(kind, server, tmp_path, tries=tries, **options))


def edit(editor, image=None, plan=PLAN, count=1):
    async def go():
        async with editor:
            return await asyncio.gather(
                *(editor.edit(image or scene(), plan, 1) for _ in range(count)), return_exceptions=True
            )

    found = asyncio.run(go())
    if count == 1 and isinstance(found[0], BaseException):
        raise found[0]
    return found[0] if count == 1 else found


def test_an_edit_is_made_inside_its_region_only(server, kind, tmp_path):
    server.reply = good(kind)
    editor = editor_of(kind, server, tmp_path)
    edited, image = np.asarray(edit(editor)).astype(int), np.asarray(scene()).astype(int)
    left, top, right, bottom = BOX
    middle = edited[top + 8 : bottom - 8, left + 8 : right - 8].reshape(-1, 3).mean(axis=0)
    assert middle[2] > middle[0] + 80
    outside = np.ones(image.shape[:2], dtype=bool)
    outside[REGION[1] : REGION[3], REGION[0] : REGION[2]] = False
    assert (edited[outside] == image[outside]).all()
    (body,) = server.requests
    text = json.dumps(body, default=str)
    assert "Make the red square blue." in text
    assert "Change nothing else" in text
    assert editor.summary()["spent"] == pytest.approx(0.04)
    header = server.headers[0]
    assert KEY in (header.get("Authorization", "") + header.get("x-goog-api-key", ""))
    if kind == "openai":
        with Image.open(io.BytesIO(body["mask"])) as mask, Image.open(io.BytesIO(body["image"])) as sent:
            assert mask.size == sent.size == tuple(int(side) for side in body["size"].split("x"))
            assert 0.15 < (np.asarray(mask)[..., 3] == 0).mean() < 0.3


def test_a_second_time_costs_nothing_and_gives_the_same(server, kind, tmp_path):
    server.reply = good(kind)
    first = edit(editor_of(kind, server, tmp_path))
    again = editor_of(kind, server, tmp_path)
    assert edit(again).tobytes() == first.tobytes()
    assert len(server.requests) == 1
    assert (again.summary()["cached"], again.summary()["spent"]) == (1, 0.0)
    edit(editor_of(kind, server, tmp_path), plan=PLAN.model_copy(update={"instruction": "Make it green."}))
    assert len(server.requests) == 2


def test_a_damaged_cache_file_is_asked_again(server, kind, tmp_path):
    server.reply = good(kind)
    edit(editor_of(kind, server, tmp_path))
    (file,) = (tmp_path / "cache").rglob("*.json")
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "value": record["value"][:200]}))
    edit(editor_of(kind, server, tmp_path))
    assert len(server.requests) == 2


@pytest.mark.parametrize("trouble", [503, RESET, "garbled", "cut"])
def test_passing_trouble_is_tried_again(server, kind, tmp_path, trouble):
    def reply(number, body):
        answer = good(kind)(number, body)
        if number:
            return answer
        if trouble == "garbled":
            return web.Response(body=b"<html>busy</html>", content_type="application/json")
        if trouble == "cut":
            return web.Response(body=answer.body[: len(answer.body) // 2], content_type="application/json")
        return trouble if trouble is RESET else failure(trouble)

    server.reply = reply
    editor = editor_of(kind, server, tmp_path)
    edit(editor)
    assert len(server.requests) == 2
    usage = editor.summary()
    assert sum(usage["failures"].values()) + usage["malformed_replies"] == 1


def test_a_timeout_counts_as_spent(server, kind, tmp_path):
    server.reply = lambda number, body: HANG
    editor = editor_of(kind, server, tmp_path, tries=2, timeout=0.3)
    with pytest.raises(NotReached) as error:
        edit(editor)
    assert error.value.reason == "failed"
    assert editor.summary()["spent"] == pytest.approx(0.08)
    assert editor.summary()["failures"] == {"no answer": 2}


@pytest.mark.parametrize("answer", ["no picture", "other bytes", "other shape", "broken picture"])
def test_answers_without_a_usable_picture_are_given_up_and_remembered(server, kind, tmp_path, answer):
    data = {
        "no picture": b"",
        "other bytes": b"I cannot do that.",
        "other shape": png(Image.new("RGB", (300, 100))),
        "broken picture": png(scene())[:300],
    }[answer]
    server.reply = lambda number, body: ANSWERS[kind](data)
    editor = editor_of(kind, server, tmp_path)
    with pytest.raises(NotEdited) as error:
        edit(editor)
    assert error.value.reason == "malformed picture"
    assert not isinstance(error.value, NotReached)
    assert len(server.requests) == 3
    # Every one of them was answered, so every one is billed.
    assert editor.summary()["spent"] == pytest.approx(0.12)
    with pytest.raises(NotEdited, match="malformed picture"):
        edit(editor_of(kind, server, tmp_path))
    assert len(server.requests) == 3


def test_a_larger_picture_of_the_same_shape_is_brought_back_to_size(server, kind, tmp_path):
    def reply(number, body):
        picture = recoloured(sent_picture(body))
        return ANSWERS[kind](png(picture.resize((picture.width * 3 // 2, picture.height * 3 // 2))))

    server.reply = reply
    assert edit(editor_of(kind, server, tmp_path)).size == scene().size


def test_without_a_region_it_is_found_by_what_changed(server, kind, tmp_path):
    server.reply = good(kind)
    edited = edit(editor_of(kind, server, tmp_path), plan=PLAN.model_copy(update={"region": None}))
    same = (np.asarray(edited) == np.asarray(scene())).all(axis=2)
    assert same[:20].all()
    assert not same[40:60, 50:70].any()


def test_nothing_is_asked_once_the_cap_is_spent(server, kind, tmp_path):
    server.reply, server.delay = good(kind), 0.02
    editor = editor_of(kind, server, tmp_path, max_cost=0.1, concurrency=2)
    found = edit(editor, count=8)
    # What was in flight when the cap was reached still ends.
    assert len(server.requests) in (3, 4)
    assert editor.summary()["spent"] == pytest.approx(0.04 * len(server.requests))
    reasons = [error.reason for error in found if isinstance(error, NotReached)]
    assert reasons == ["spending cap"] * (8 - len(server.requests))


def test_a_wrong_key_stops_everything_and_hides_itself(server, kind, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server.reply = lambda number, body: failure(401, f"bad key {KEY}")
    editor = editor_of(kind, server, tmp_path)
    with pytest.raises(ConfigError, match=r"Fix:") as error:
        edit(editor)
    assert KEY not in str(error.value)
    assert KEY not in caplog.text
    assert len(server.requests) == 1
    assert editor.summary()["spent"] == 0


def test_a_refused_picture_is_left_out(server, kind, tmp_path):
    server.reply = lambda number, body: failure(400, "moderation blocked")
    with pytest.raises(NotEdited) as error:
        edit(editor_of(kind, server, tmp_path))
    assert error.value.reason == "refused picture"


def proposal(**changes):
    fields = {
        "possible": True, "operation": "recolour", "target": "the red square", "instruction": "Make the square blue.",
        "new_answer": "blue", "left": 0.30, "top": 0.27, "right": 0.69, "bottom": 0.76, "reason": "it is plain",
    }  # fmt: skip
    return web.json_response(completion(json.dumps(fields | changes)))


@pytest.fixture
def asked(server, tmp_path):
    """A question, and settings with a remote proposer and editor."""
    store = ImageStore(tmp_path / "store")
    items = [
        VqaItem(str(number), store.put(scene()), f"{'very ' * number}what color is the square?", "red", "x", "x")
        for number in range(3)
    ]
    proposer = ProposerSpec(
        model="seer", base_url=server.url, key_variable="CONTEXTRL_TEST_KEY", cache=tmp_path / "cache", price_in=1,
        price_out=1,
    )  # fmt: skip
    return items, EditSettings(proposer=proposer, editor=role_of("openai", server, tmp_path))


def test_a_model_proposes_and_another_one_edits(server, asked, tmp_path):
    items, settings = asked
    server.reply = lambda number, body: proposal() if "messages" in body else good("openai")(number, body)
    before = list(estimate(items, tmp_path / "store", settings))
    assert not server.requests
    assert "3 calls to make" in before[1]
    assert "at most 0.1200 without" in before[2]
    funnel = Funnel()
    result = edit_here(items, tmp_path / "store", settings, funnel)
    funnel.check()
    assert [couple.answers for couple in result.couples] == [("red", "blue")] * 3
    assert {stage.name: stage.left for stage in funnel} == {"propose": 3, "edit": 3, "check edit": 3}
    assert result.usage["proposer"]["answered"] == 3
    # Three questions, one edit: the same picture and instruction are asked for once, or at once.
    assert 1 <= result.usage["editor"]["answered"] <= 3
    (body, *_) = [body for body in server.requests if "messages" in body]
    assert body["messages"][1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    count = len(server.requests)
    again = edit_here(items, tmp_path / "store", settings, Funnel())
    assert again.couples == result.couples
    assert len(server.requests) == count
    assert "0 calls to make, 3 answers already in the cache" in list(estimate(items, tmp_path / "store", settings))[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"possible": False}, "no edit proposed"),
        ({"new_answer": " Red. "}, "proposal keeps the answer"),
        ({"instruction": " "}, "incomplete proposal"),
        ({"left": 0.7, "right": 0.3}, "region too large or too small"),
        ({"left": 0, "top": 0, "right": 1, "bottom": 1}, "region too large or too small"),
        ({"left": 7}, "malformed proposal"),
    ],
)
def test_proposals_that_are_not_used_are_counted(server, asked, tmp_path, change, reason):
    items, settings = asked
    server.reply = lambda number, body: proposal(**change)
    funnel = Funnel()
    assert edit_here(items, tmp_path / "store", settings, funnel).couples == []
    assert funnel.stage("propose").dropped == {reason: 3}
    assert set(server.asked) == {"/v1/chat/completions"}


def test_what_the_cap_kept_from_being_asked_is_reported(server, asked, tmp_path):
    items, settings = asked
    server.reply = lambda number, body: proposal() if "messages" in body else good("openai")(number, body)
    poor = EditSettings(proposer=settings.proposer, editor=role_of("openai", server, tmp_path, max_cost=0.0))
    result = edit_here(items, tmp_path / "store", poor, Funnel())
    assert result.unreached == {"spending cap": 3}
    assert "/v1/images/edits" not in server.asked


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda picture: picture.point(lambda level: int(level * 0.7)), "whole picture restyled"),
        # Contrast and sharpness as before.
        (lambda picture: picture.point(lambda level: level - 12), "whole picture restyled"),
        (lambda picture: picture.filter(ImageFilter.GaussianBlur(picture.width / 60)), "whole picture blurred"),
    ],
)
def test_a_model_that_changes_the_whole_picture_is_found_out(server, asked, tmp_path, spoil, reason):
    items, settings = asked
    server.reply = lambda number, body: (
        proposal() if "messages" in body else openai_answer(png(spoil(recoloured(sent_picture(body)))))
    )
    funnel = Funnel()
    assert edit_here(items, tmp_path / "store", settings, funnel).couples == []
    assert funnel.stage("edit").dropped == {reason: 3}
