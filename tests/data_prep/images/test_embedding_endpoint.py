"""Vectors from a real HTTP server: faults, cache, cap; counts are exact."""

from __future__ import annotations

import json
import traceback

import numpy as np
import pytest
from aiohttp import web
from chat_server import HANG, KEY, RESET, ChatServer, alone, failure
from embedding_server import embedding, picture_of, right, vector_of
from made_pictures import noisy

from contextrl_verl.errors import ConfigError
from data_prep.images.embed.endpoint import EndpointEmbedder, read_embedding
from data_prep.images.embed.parts import make_embedder, unit_rows
from data_prep.models.endpoint import MalformedReply

PICTURES = [noisy(seed, 20, 14) for seed in range(6)]


@pytest.fixture
def server(monkeypatch):
    alone(monkeypatch)
    with ChatServer(right, path="/v1/embeddings") as running:
        yield running


@pytest.fixture
def make(server, tmp_path):
    def make(*options: str, cache: str = "cache") -> EndpointEmbedder:
        words = ["m", f"base_url={server.url}", f"cache={tmp_path / cache}", "key_variable=CONTEXTRL_TEST_KEY"]
        return EndpointEmbedder(" ".join([*words, "tries=4", *options]))

    return make


def expected(pictures):
    rows = np.stack([vector_of(picture) for picture in pictures])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_each_picture_gets_its_own_vector(server, make):
    server.delay = 0.2
    embedder = make("concurrency=3")
    np.testing.assert_allclose(unit_rows(embedder, PICTURES), expected(PICTURES), atol=1e-6)
    assert 2 <= server.most_at_a_time <= 3
    assert {body["model"] for body in server.requests} == {"m"}
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    # Losslessly: what arrives is what was sent.
    sent = {picture.tobytes() for picture in PICTURES}
    assert {picture_of(body).tobytes() for body in server.requests} == sent
    usage = embedder.usage
    assert (usage.requests, usage.answered, usage.cached, usage.input_tokens) == (6, 6, 0, 60)


def test_a_rerun_costs_nothing_and_gives_the_same_bytes(server, make):
    first = make().embed(PICTURES)
    again = make()
    assert again.embed(PICTURES[::-1])[::-1].tobytes() == first.tobytes()
    assert len(server.requests) == 6
    assert (again.usage.requests, again.usage.cached) == (0, 6)


def test_one_embedder_is_used_batch_after_batch(server, make):
    embedder = make("concurrency=2", "price_in=1", "price_out=0", "max_cost=1")
    for start in range(0, 6, 2):
        embedder.embed(PICTURES[start : start + 2])
    assert embedder.usage.answered == 6
    assert float(embedder.budget.spent) == pytest.approx(60e-6)


FAULTS = {
    "429": lambda: failure(429, headers={"retry-after": "0.05"}),
    "500": lambda: failure(500),
    "503": lambda: failure(503),
    "timeout": lambda: HANG,
    "connection": lambda: RESET,
    "malformed": lambda: web.Response(text="<html>"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_tried_again(server, make, fault):
    server.reply = lambda number, body: FAULTS[fault]() if number < 2 else right(number, body)
    embedder = make("concurrency=1", "timeout=0.3")
    np.testing.assert_allclose(unit_rows(embedder, PICTURES[:2]), expected(PICTURES[:2]), atol=1e-6)
    assert embedder.usage.failures == ({} if fault == "malformed" else {fault if fault.isdigit() else "no answer": 2})
    assert embedder.usage.requests == 4


@pytest.mark.parametrize("fault", ["500", "malformed", "connection"])
def test_an_endpoint_that_stays_down_stops_the_job_and_what_came_is_kept(server, make, fault):
    server.reply = lambda number, body: right(number, body) if number < 3 else FAULTS[fault]()
    embedder = make("concurrency=1")
    with pytest.raises(ConfigError, match=r"(does not answer after 4 tries|gives no vectors).*kept in the cache. Fix:"):
        embedder.embed(PICTURES)
    server.reply = right
    again = make("concurrency=1")
    np.testing.assert_allclose(unit_rows(again, PICTURES), expected(PICTURES), atol=1e-6)
    assert (again.usage.cached, again.usage.answered) == (3, 3)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_stops_at_once_and_shows_no_key(server, make, status):
    server.reply = lambda number, body: failure(status, f"bad key {KEY}")
    with pytest.raises(ConfigError, match=rf"HTTP {status}.*Fix:") as raised:
        make("concurrency=1").embed(PICTURES)
    assert len(server.requests) <= 2
    assert KEY not in "".join(traceback.format_exception(raised.value))


def test_one_picture_that_is_refused_is_a_row_of_nan(server, make):
    odd = PICTURES[2].tobytes()
    server.reply = lambda n, body: failure(400, "too large") if picture_of(body).tobytes() == odd else right(n, body)
    embedder = make("concurrency=1")
    rows = embedder.embed(PICTURES)
    assert np.isnan(rows).all(axis=1).tolist() == [False, False, True, False, False, False]
    assert embedder.usage.unanswered["refused"] == 1
    # Again, with all others in the cache: it is asked again and is still no reason to stop.
    again = make("concurrency=1")
    for _ in range(6):
        assert np.isnan(again.embed(PICTURES)[2]).all()
    assert again.usage.unanswered["refused"] == 6


def test_refusals_only_are_the_request_s_fault(server, make):
    server.reply = lambda number, body: failure(400, "unknown field messages")
    with pytest.raises(ConfigError, match=r"refused 5 requests and answered none.*unknown field messages.*Fix:"):
        make("concurrency=1").embed(PICTURES)


def test_only_refused_pictures_give_rows_of_nan(server, make):
    server.reply = lambda number, body: failure(400, "too large")
    embedder = make()
    assert np.isnan(embedder.embed(PICTURES[:2])).all()
    server.reply = right
    assert embedder.embed(PICTURES[3:]).shape == (3, 16)


def test_the_cap_is_kept(server, make):
    embedder = make("concurrency=1", "price_in=1", "price_out=1", "max_cost=0.00003")
    with pytest.raises(ConfigError, match=r"spending cap of 0\.00003 is reached.*Fix: raise max_cost"):
        embedder.embed(PICTURES)
    assert len(server.requests) == 3
    assert make("concurrency=1").embed(PICTURES[:3]).shape == (3, 16)
    assert len(server.requests) == 3


def test_vectors_of_several_lengths_are_an_error(server, make):
    server.reply = lambda number, body: embedding([1.0] * (2 + number))
    with pytest.raises(ConfigError, match=r"vectors of \[2, 3\] dimensions .*Fix: use one model"):
        make("concurrency=1").embed(PICTURES[:2])


def test_a_damaged_cache_file_is_asked_again(server, make, tmp_path):
    first = make().embed(PICTURES[:1])
    (path,) = (tmp_path / "cache").rglob("*.json")
    record = json.loads(path.read_text())
    for vector in ("AAA", "", None, 3, "AACAfw==", "AAAAAA=="):
        path.write_text(json.dumps({**record, "value": vector}))
        embedder = make()
        assert embedder.embed(PICTURES[:1]).tobytes() == first.tobytes()
        assert embedder.cache.damaged == 1


BODIES = {
    "[1]": "the body",
    "null": "the body",
    '{"data": []}': "field data",
    '{"data": [{"embedding": [1]}, {"embedding": [2]}]}': "field data",
    '{"data": [{"embedding": "AAAA"}]}': "field data.0.embedding",
    '{"data": [{"embedding": [1, null]}]}': "field data.0.embedding.1",
    '{"data": [{"embedding": [true]}]}': "field data.0.embedding.0",
    '{"data": [{"embedding": []}]}': "field data.0.embedding",
    '{"data": [{"embedding": [NaN, 1]}]}': "field data.0.embedding.0",
    '{"data": [{"embedding": [1e300]}]}': "infinite, or zero",
    '{"data": [{"embedding": [0, 0]}]}': "infinite, or zero",
    '{"data": [{"embedding": [1' + "0" * 400 + "]}]}": "field data.0.embedding.0",
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_without_a_vector_says_why(body):
    with pytest.raises(MalformedReply) as raised:
        read_embedding(json.loads(body))
    assert BODIES[body] in str(raised.value)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[[[", b'{"data": [[]]}', b'{"data": {"embedding": [1]}}'])
def test_noise_is_no_vector(server, make, body):
    server.reply = lambda number, _: web.Response(body=body, content_type="application/json")
    with pytest.raises(ConfigError, match="gives no vectors: 3 unusable replies"):
        make().embed(PICTURES[:1])


BAD = [
    "m",
    "http://h/v1 m",
    "m base_url=http://h/v1 concurrency=0",
    "m base_url=http://h/v1 colour=red",
    "m base_url=h",
]


@pytest.mark.parametrize("words", BAD)
def test_a_description_that_makes_no_sense_is_named(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="Fix:"):
        make_embedder(f"endpoint:{words}")


def test_a_description_has_the_defaults_and_no_secret_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    embedder = make_embedder("endpoint:Qwen/m base_url=http://user:password@h:1/v1")
    assert embedder.name == "endpoint:http://h:1/v1 Qwen/m"
    assert embedder.spec.cache.name == "embedding_cache"
