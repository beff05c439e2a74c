"""Judges in front of a server of the test."""

from __future__ import annotations

import pytest
from chat_server import ChatServer, alone

from data_prep.models.spec import ModelSpec
from data_prep.verify.judge import OpenAIJudge


@pytest.fixture
def server(monkeypatch):
    alone(monkeypatch)
    with ChatServer() as running:
        yield running


@pytest.fixture
def make_judge(server, tmp_path):
    def make(prices=(None, None), cap=None, cache="cache", **settings):
        settings = {"timeout": 5.0, "key_variable": "CONTEXTRL_TEST_KEY", "base_url": server.url, "tries": 4} | settings
        settings |= {"price_in": prices[0], "price_out": prices[1], "max_cost": cap}
        return OpenAIJudge(ModelSpec(model="m", cache=tmp_path / cache if cache else None, **settings))

    return make
