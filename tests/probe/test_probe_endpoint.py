"""A model behind a real HTTP server of the test, with log-probabilities and without."""

from __future__ import annotations

import json
import math
import re

import pytest
from aiohttp import web
from chat_server import KEY, ChatServer, alone, completion, failure
from probe_stubs import couples
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.pairs.files import write_pairs
from data_prep.probe.report import read_result


@pytest.fixture
def server(monkeypatch):
    alone(monkeypatch)
    with ChatServer() as running:
        yield running


@pytest.fixture
def ask(server, tmp_path):
    write_pairs(couples(4), tmp_path / "pairs.parquet")

    def call(*arguments):
        command = ["probe", str(tmp_path / "pairs.parquet"), "--out", str(tmp_path / "out")]
        for item in ("m", f"base_url={server.url}", "key_variable=CONTEXTRL_TEST_KEY", f"cache={tmp_path / 'cache'}"):
            command += ["--endpoint", item]
        return CliRunner().invoke(app, [*command, *arguments])

    return call


def right_label(body) -> str:
    text = str(body["messages"])
    side = re.search(r"Answer:\\n(left|right)", text).group(1)
    return "A" if text.index("file " + side) < text.index("===== Context B") else "B"


def listed(tokens, content="A", **more):
    """A completion with log-probabilities of the first token; ``tokens`` by probability."""
    body = completion(content, finish="length", **more)
    entries = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in tokens.items()]
    body["choices"][0]["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
    return web.json_response(body)


def test_log_probabilities_of_the_labels_are_read(ask, server, tmp_path):
    def reply(number, body):
        right = right_label(body)
        return listed({right: 0.5, f" {right}": 0.1, {"A": "B", "B": "A"}[right]: 0.2, "The": 0.1})

    server.reply = reply
    done = ask("--chat-template-kwargs", "enable_thinking=false")
    assert done.exit_code == 0, done.output
    summary, table = read_result("x", tmp_path / "out")
    assert (summary["accuracy"], summary["position_bias"], summary["questions"]) == (1, 0, 16)
    assert summary["option_mass"] == pytest.approx(0.8)
    assert summary["margin_mean"] == pytest.approx(math.log(0.6 / 0.2))
    assert len(table) == 16
    assert len(server.requests) == 16
    for body in server.requests:
        assert (body["logprobs"], body["top_logprobs"], body["temperature"]) == (True, 20, 1)
        assert body.get("max_tokens", body.get("max_completion_tokens")) == 1
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        assert "response_format" not in body
    assert KEY not in done.output + (tmp_path / "out" / "summary.json").read_text()
    # Again from the cache.
    assert ask("--chat-template-kwargs", "enable_thinking=false").exit_code == 0
    assert len(server.requests) == 16


def test_a_label_that_is_not_listed_is_less_likely_than_all_that_are(ask, server, tmp_path):
    server.reply = lambda number, body: listed({"A": 0.6, "x": 0.2, "y": 0.1})
    assert ask().exit_code == 0
    summary, _ = read_result("x", tmp_path / "out")
    assert (summary["accuracy"], summary["position_bias"]) == (0.5, 1)
    assert summary["asked_with"]["a_label_not_listed"] == 16


def test_the_least_of_the_list_still_beats_what_is_not_listed(ask, server, tmp_path):
    server.reply = lambda number, body: listed({"x": 0.6, right_label(body): 0.1})
    assert ask().exit_code == 0
    assert read_result("x", tmp_path / "out")[0]["accuracy"] == 1


def test_no_label_listed_is_no_choice(ask, server, tmp_path):
    server.reply = lambda number, body: listed({"The": 0.6, "Con": 0.2}, content=" ")
    done = ask()
    assert done.exit_code == 0, done.output
    assert "100% of the replies name no option" in done.output
    summary, _ = read_result("x", tmp_path / "out")
    assert (summary["accuracy"], summary["no_choice"]) == (0, 1)


@pytest.mark.parametrize(
    "reply",
    [
        lambda number, body: web.json_response(completion("A")),
        lambda number, body: web.json_response({**completion("A"), "logprobs": None}),
        lambda number, body: failure(400, "logprobs are not supported by this model"),
    ],
    ids=["left out", "null", "refused"],
)
def test_an_endpoint_without_log_probabilities_is_one_sentence_after_one_request(ask, server, tmp_path, reply):
    server.reply = reply
    done = ask()
    assert done.exit_code == 1
    assert "the endpoint gives no logprobs" in done.stderr
    assert "Fix: use --sampled 4" in done.stderr
    assert "Traceback" not in done.output
    assert len(server.requests) == 1
    assert not (tmp_path / "out").exists()


def test_written_replies_are_read_as_the_reward_reads_them(ask, server, tmp_path):
    def reply(number, body):
        assert "logprobs" not in body
        return web.json_response(completion(f"<think>hm</think>The answer is {right_label(body)}."))

    server.reply = reply
    done = ask("--sampled", "3")
    assert done.exit_code == 0, done.output
    summary, table = read_result("x", tmp_path / "out")
    assert (summary["accuracy"], summary["both_orders"], summary["no_choice"]) == (1, 1, 0)
    assert summary["option_mass"] is None
    assert sorted({tuple(votes) for votes in table["votes"]}) == [(0, 3), (3, 0)]
    assert len(server.requests) == 48
    server.reply = lambda number, body: web.json_response(completion("A or B, who knows"))
    assert ask("--sampled", "3", "--seed", "2", "--endpoint", "max_tokens=9").exit_code == 0
    assert read_result("x", tmp_path / "out")[0]["no_choice"] == 1


def test_a_question_the_endpoint_refuses_is_counted(ask, server, tmp_path):
    def reply(number, body):
        return failure(400, "too long") if number == 7 else listed({right_label(body): 0.9, "x": 0.1})

    server.reply = reply
    assert ask("--endpoint", "concurrency=1").exit_code == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["questions"] == 15
    assert next(stage for stage in summary["stages"] if stage["name"] == "answers")["dropped"] == {"refused": 1}


def test_a_prefill_cannot_be_sent(ask, server):
    done = ask("--prefill", "Option")
    assert done.exit_code == 1
    assert "--prefill is 'Option', and a chat endpoint starts the reply itself" in done.stderr
    assert not server.requests
