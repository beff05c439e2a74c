"""The endpoint client against a real server: retries, fallbacks, malformed answers, cache; counts are exact."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import time
import traceback

import pytest
from aiohttp import web
from chat_server import HANG, KEY, RESET, completion, failure, verdict
from judged_pairs import couple, couples

from contextrl_verl.errors import ConfigError
from data_prep.models.spec import shown_url
from data_prep.verify.write import verify


def ask(judge, pairs):
    async def all_of_them():
        async with judge:
            return [await judge.judge(pair) for pair in pairs]

    return asyncio.run(all_of_them())


def only(server, judge):
    (judgement,) = ask(judge, couple(0)[:1])
    return judgement, judge.summary()


def test_an_answer_is_asked_with_a_schema_and_the_key_in_the_header(server, make_judge):
    judgement, usage = only(server, make_judge())
    assert (judgement.label, judgement.reason, judgement.how) == ("VALID", "1: the log shows it", "answered")
    (body,) = server.requests
    schema = body["response_format"]["json_schema"]
    assert schema["strict"]
    assert schema["schema"]["additionalProperties"] is False
    assert schema["schema"]["required"] == ["reason", "label"]
    assert (body["model"], body["max_completion_tokens"], body["temperature"]) == ("m", 2048, 0.0)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert (usage["requests"], usage["answered"], usage["cached"]) == (1, 1, 0)
    assert (usage["input_tokens"], usage["output_tokens"]) == (100, 20)


def test_a_rerun_asks_nothing_and_answers_the_same(server, make_judge):
    server.reply = lambda number, body: verdict("INVALID", f"reason {number}")
    first = ask(make_judge(), couples(5))
    again = make_judge()
    second = ask(again, couples(5))
    assert len(server.requests) == 10
    assert [(j.label, j.reason) for j in first] == [(j.label, j.reason) for j in second]
    assert all(j.cached for j in second)
    assert again.summary()["cached"] == 10
    assert again.summary()["requests"] == 0


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"max_tokens": 9}, {"extra": {"seed": 1}}])
def test_other_parameters_are_other_questions(server, make_judge, change):
    only(server, make_judge())
    only(server, make_judge(**change))
    assert len(server.requests) == 2


def test_a_damaged_cache_file_is_asked_again_and_replaced(server, make_judge, tmp_path):
    only(server, make_judge())
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_bytes(file.read_bytes()[:20])
    _, usage = only(server, make_judge())
    assert (len(server.requests), usage["damaged_cache_files"]) == (2, 1)
    assert only(server, make_judge())[0].cached


def test_429_waits_as_long_as_the_server_says(server, make_judge):
    server.reply = lambda number, body: failure(429, headers={"Retry-After": "1"}) if number == 0 else verdict()
    times = []
    reply = server.reply
    server.reply = lambda number, body: (times.append(time.monotonic()), reply(number, body))[1]
    judgement, usage = only(server, make_judge())
    assert judgement.label == "VALID"
    assert times[1] - times[0] >= 1.0
    assert (usage["requests"], usage["failures"]) == (2, {"429": 1})


def test_a_wait_beyond_patience_ends_the_request(server, make_judge):
    server.reply = lambda number, body: failure(429, "busy", headers={"Retry-After": "3600"})
    judgement, _ = only(server, make_judge())
    assert (judgement.label, judgement.how) == (None, "failed")
    assert len(server.requests) == 1


def test_a_burst_of_500_is_outlasted(server, make_judge):
    server.reply = lambda number, body: failure(500) if number < 3 else verdict()
    judgement, usage = only(server, make_judge())
    assert judgement.label == "VALID"
    assert (usage["requests"], usage["failures"]) == (4, {"500": 3})


def test_a_timeout_is_tried_again_and_counted_at_its_worst(server, make_judge):
    server.reply = lambda number, body: HANG if number == 0 else verdict()
    judgement, usage = only(server, make_judge(timeout=0.4, prices=(1, 1)))
    assert judgement.label == "VALID"
    assert usage["failures"] == {"no answer": 1}
    assert usage["spent"] == pytest.approx(usage["of_it_at_worst_case"] + 120e-6)
    assert usage["of_it_at_worst_case"] > 2048e-6


def test_a_reset_connection_is_tried_again(server, make_judge):
    server.reply = lambda number, body: RESET if number < 2 else verdict()
    judgement, usage = only(server, make_judge())
    assert judgement.label == "VALID"
    assert usage["failures"] == {"no answer": 2}


def test_4xx_is_not_tried_again_and_concerns_one_pair(server, make_judge):
    def reply(number, body):
        return failure(400, "too long for the context") if "part 1.0" in str(body["messages"]) else verdict()

    server.reply = reply
    judgements = ask(make_judge(), couples(2))
    assert sorted(j.how for j in judgements) == ["answered", "answered", "refused", "refused"]
    assert len(server.requests) == 4
    assert "too long for the context" in next(j.reason for j in judgements if j.how == "refused")


def test_refusals_without_any_answer_stop_the_command(server, make_judge):
    server.reply = lambda number, body: failure(422, "frequency of the moon is required")
    with pytest.raises(ConfigError, match=r"refused 5 requests and answered none.*frequency of the moon.*Fix:"):
        ask(make_judge(), couples(10))
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, "", "CONTEXTRL_TEST_KEY"),
        (402, "", "bill"),
        (403, "", "may use the model 'm'"),
        (404, "", "/v1"),
        (429, "insufficient_quota", "quota"),
    ],
)
def test_what_no_retry_can_mend_stops_at_once(server, make_judge, status, code, says):
    server.reply = lambda number, body: failure(status, "no", code=code)
    with pytest.raises(ConfigError, match=f"HTTP {status}.*Fix: .*{says}"):
        ask(make_judge(tries=2), couples(3))
    # The client tries any 429 again before it says why it came.
    assert len(server.requests) == (2 if status == 429 else 1)


@pytest.mark.parametrize(
    "content",
    [
        '{"reason": "1: the l',
        "VALID",
        "",
        None,
        "[]",
        '{"label": "VALID"}',
        '{"reason": "x", "label": "MAYBE"}',
        '{"reason": "", "label": "VALID"}',
        '{"reason": 3, "label": "VALID"}',
        '{"reason": "x", "label": "VALID"} or {"reason": "x", "label": "INVALID"}',
        "{" * 5000,
    ],
)
def test_malformed_content_is_asked_again_then_uncertain(server, make_judge, content):
    server.reply = lambda number, body: web.json_response(completion(content))
    judgement, usage = only(server, make_judge(malformed_tries=3))
    assert (judgement.label, judgement.how) == ("UNCERTAIN", "malformed")
    assert (usage["requests"], usage["malformed_replies"], usage["malformed"]) == (3, 3, 1)
    assert "could not be used" in server.requests[1]["messages"][-1]["content"]
    assert only(server, make_judge(malformed_tries=3))[0].cached
    assert len(server.requests) == 3
    server.reply = lambda number, body: verdict()
    assert only(server, make_judge(again_if_malformed=True))[0].label == "VALID"


@pytest.mark.parametrize(
    "body", [b"<html>gateway</html>", b'{"choices": [', b"[]", b"null", b'{"choices": [7]}', b"\xff\xfe\x00"]
)
def test_a_body_that_is_no_completion_is_malformed(server, make_judge, body):
    server.reply = lambda number, _: web.Response(body=body, content_type="application/json")
    judgement, usage = only(server, make_judge(malformed_tries=2))
    assert (judgement.how, usage["malformed_replies"], usage["input_tokens"]) == ("malformed", 2, 0)


@pytest.mark.parametrize(
    "content",
    [
        '```json\n{"reason": "x", "label": "INVALID"}\n```',
        '<think>\n{"label": "VALID"?}\n</think>\n{"reason": "x", "label": "invalid"}',
        'My verdict: {"reason": "x", "label": " INVALID ", "confidence": 1}. Done.',
    ],
)
def test_json_amid_prose_is_found(server, make_judge, content):
    server.reply = lambda number, body: web.json_response(completion(content))
    assert only(server, make_judge())[0].label == "INVALID"


def test_a_cut_reply_is_asked_again_with_more_room(server, make_judge):
    def reply(number, body):
        return web.json_response(completion('{"reason": "1: the', finish="length")) if number == 0 else verdict()

    server.reply = reply
    assert only(server, make_judge(max_tokens=64))[0].label == "VALID"
    assert [body["max_completion_tokens"] for body in server.requests] == [64, 128]


def test_a_refused_response_format_falls_back_once_and_says_so(server, make_judge, caplog):
    def reply(number, body):
        kind = body.get("response_format", {}).get("type", "none")
        if kind != "none":
            return failure(400, f"response_format of type {kind} is not supported by this server")
        return web.json_response(completion('Sure: {"reason": "x", "label": "VALID"}'))

    server.reply = reply
    judge = make_judge(concurrency=1)
    with caplog.at_level(logging.WARNING):
        assert [j.label for j in ask(judge, couples(3))] == ["VALID"] * 6
    assert len(judge.summary()["fallbacks"]) == 1
    assert len(server.requests) == 7
    assert len([record for record in caplog.records if "refuses response_format" in record.message]) == 1


def test_older_names_of_parameters(server, make_judge):
    def reply(number, body):
        if "max_completion_tokens" in body:
            return failure(400, "Unrecognized request argument supplied: max_completion_tokens")
        if "temperature" in body:
            return failure(400, "Unsupported value: 'temperature' does not support 0.0 with this model")
        return verdict()

    server.reply = reply
    judgement, usage = only(server, make_judge())
    assert judgement.label == "VALID"
    assert server.requests[-1]["max_tokens"] == 2048
    assert len(usage["fallbacks"]) == 2


def test_an_endpoint_that_is_down_is_one_paragraph(make_judge):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    judge = make_judge(base_url=f"http://127.0.0.1:{port}/v1", tries=2, prices=(1, 1))
    with pytest.raises(ConfigError) as caught:
        verify(couples(20), judge)
    assert "does not answer after 2 tries" in str(caught.value)
    assert "\n" not in str(caught.value)
    # No answer came; only requests that were broken off count, at their worst case.
    assert judge.summary()["spent"] == judge.summary()["of_it_at_worst_case"]


def test_a_request_that_was_never_sent_costs_nothing(make_judge):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    judge = make_judge(base_url=f"http://127.0.0.1:{port}/v1", tries=3, prices=(1, 1))
    (judgement,) = ask(judge, couple(0)[:1])
    assert (judgement.how, judge.summary()["spent"], judge.summary()["requests"]) == ("failed", 0, 3)


def test_an_endpoint_that_dies_keeps_what_it_answered(server, make_judge):
    server.reply = lambda number, body: verdict() if number < 7 else RESET
    with pytest.raises(ConfigError, match="kept in the cache"):
        verify(couples(10), make_judge(tries=2, concurrency=1))
    server.reply = lambda number, body: verdict()
    before = len(server.requests)
    again = make_judge()
    verify(couples(10), again)
    assert again.summary()["cached"] == 7
    assert len(server.requests) - before == 13


def test_the_order_of_results_is_that_of_the_pairs(server, make_judge):
    def reply(number, body):
        text = str(body["messages"])
        return verdict("INVALID", text[text.index("which run made") :][:40])

    server.reply, server.delay = reply, 0.005
    result = verify(couples(30), make_judge(concurrency=7))
    assert [d.pair_id for d in result.decisions] == [p.pair_id for p in couples(30)]
    for pair, decision in zip(couples(30), result.decisions, strict=True):
        assert pair.query in decision.detail
    assert 1 < server.most_at_a_time <= 7


def test_the_key_shows_nowhere(server, make_judge, tmp_path, caplog, monkeypatch):
    partly = f"{KEY[:8]}{'*' * 12}{KEY[-4:]}"
    coded = base64.b64encode(f"me:{KEY}".encode()).decode()
    told = f"\x1b[31mbad\x1b[0m key {KEY} or {partly} or {coded} or {KEY[:14]}..."
    caplog.set_level(logging.DEBUG)
    server.reply = lambda number, body: verdict("INVALID", told)
    judge = make_judge()
    judgement = ask(judge, couple(0))[0]
    shown = [repr(judge), str(vars(judge)), str(judge.summary()), judgement.reason]
    for status in (400, 401, 429, 500):
        server.reply = lambda number, body, status=status: failure(status, told)
        try:
            shown.append(str(ask(make_judge(cache=None, tries=2), couple(1))))
        except ConfigError as error:
            shown.append("".join(traceback.format_exception(error)))
    files = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    texts = [*shown, *files, *(record.getMessage() for record in caplog.records)]
    assert len(files) == 2
    assert "<API key>" in judgement.reason
    for text in texts:
        assert KEY not in text
        assert partly not in text
        assert KEY[:10] not in text
        assert coded[8:-8] not in text
    for text in shown[4:]:  # the endpoint's errors
        assert "\x1b" not in text


def test_a_key_is_wanted_or_not(server, make_judge, monkeypatch):
    monkeypatch.delenv("CONTEXTRL_TEST_KEY")
    assert only(server, make_judge())[0].label == "VALID"
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="variable CONTEXTRL_TEST_KEY is empty"):
        ask(make_judge(base_url=None), couple(0))
    monkeypatch.setenv("CONTEXTRL_TEST_KEY", "sécret-key\nx")
    with pytest.raises(ConfigError, match="characters that no key has") as caught:
        ask(make_judge(), couple(0))
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http://", "file:///etc/passwd"])
def test_an_address_that_is_none(make_judge, url):
    with pytest.raises(ConfigError, match="not an http"):
        make_judge(base_url=url)


def test_cached_files_hold_no_prompt(server, make_judge, tmp_path):
    only(server, make_judge())
    (file,) = (tmp_path / "cache").rglob("*.json")
    record = json.loads(file.read_text())
    assert sorted(record) == ["how", "key", "model", "value", "why"]


def test_an_address_is_shown_without_its_password():
    assert shown_url("https://me:secret@host:8000/v1?token=1") == "https://host:8000/v1"
