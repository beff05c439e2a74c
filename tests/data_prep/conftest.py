"""Judges in front of a server of the test."""

from __future__ import annotations

import pytest
from chat_server import KEY, ChatServer

from data_prep.models.budget import Budget, Prices
from data_prep.models.cache import ReplyCache
from data_prep.models.chat import ChatSettings
from data_prep.models.retry import RetryPolicy
from data_prep.verify.judge import OpenAIJudge


@pytest.fixture
def server(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONTEXTRL_TEST_KEY", KEY)
    with ChatServer() as running:
        yield running


@pytest.fixture
def make_judge(server, tmp_path):
    def make(prices=None, cap=None, cache="cache", attempts=4, first_wait=0.01, longest_wait=5.0, **settings):
        settings = {"timeout": 5.0, "key_variable": "CONTEXTRL_TEST_KEY", "base_url": server.url} | settings
        retry = RetryPolicy(attempts, first_wait, longest_wait)
        return OpenAIJudge(
            ChatSettings(model="m", retry=retry, **settings),
            ReplyCache(tmp_path / cache) if cache else None,
            Budget(Prices.of(*prices) if prices else None, cap),
        )

    return make
