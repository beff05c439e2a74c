"""Once the cap is reached nothing more is asked; the dry run tells what would be spent."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from chat_server import HANG, verdict
from judged_pairs import couples

from contextrl_verl.errors import ConfigError
from data_prep.models.chat import input_tokens
from data_prep.models.spec import read_spec
from data_prep.verify.judge import judge_messages
from data_prep.verify.write import incomplete, verify


def billed(server) -> Decimal:
    """What the server would write on the bill: every answer at 3,000 input and 50 output tokens."""
    return len(server.requests) * Decimal(6400) / 1_000_000


@pytest.mark.parametrize("concurrency", [1, 16])
def test_the_cap_holds_under_concurrency(server, make_judge, concurrency):
    server.reply, server.delay = lambda number, body: verdict(tokens=(3000, 50)), 0.01
    pairs = couples(40)
    judge = make_judge(prices=(2, 8), cap="0.1", concurrency=concurrency)
    result = verify(pairs, judge)
    usage = judge.summary()
    assert billed(server) == Decimal(str(usage["spent"]))
    # It stops for the cap's sake: what was in flight then still ends, and nothing else.
    assert 0.1 <= usage["spent"] < 0.1 + concurrency * 0.0064
    assert usage["answered"] + result.unjudged["spending cap"] == 80
    assert usage["unanswered"]["spending cap"] == result.unjudged["spending cap"]
    assert "spending cap" in str(incomplete(result))
    assert "max_cost" in str(incomplete(result))


def test_what_was_answered_before_the_cap_is_free_afterwards(server, make_judge):
    server.reply = lambda number, body: verdict(tokens=(3000, 50))
    first = verify(couples(40), make_judge(prices=(2, 8), cap="0.1"))
    asked = len(server.requests)
    again = make_judge(prices=(2, 8), cap="10")
    second = verify(couples(40), again)
    assert len(server.requests) == 80
    assert again.summary()["cached"] == asked == 80 - first.unjudged["spending cap"]
    assert not second.unjudged
    assert incomplete(second) is None


def test_a_cap_of_zero_asks_nothing(server, make_judge):
    result = verify(couples(3), make_judge(prices=(1, 1), cap=0))
    assert result.unjudged == {"spending cap": 6}
    assert not server.requests


def test_timeouts_eat_the_cap_since_they_may_be_billed(server, make_judge):
    server.reply = lambda number, body: HANG
    judge = make_judge(prices=(1, 1), cap="0.02", timeout=0.2, tries=2, concurrency=1)
    with pytest.raises(ConfigError, match="does not answer after 2 tries"):
        verify(couples(10), judge)
    assert judge.summary()["spent"] == judge.summary()["of_it_at_worst_case"] > 4 * 2048e-6
    assert len(server.requests) == 4


def test_an_answer_without_token_counts_costs_its_worst_case(server, make_judge):
    server.reply = lambda number, body: verdict(tokens=None)
    judge = make_judge(prices=(1, 1), cap=1)
    verify(couples(1), judge)
    usage = judge.summary()
    assert usage["spent"] == usage["of_it_at_worst_case"] > 2 * 2048e-6
    assert usage["input_tokens"] == 0


@pytest.mark.parametrize(("prices", "cap"), [((None, None), 1), ((1, 1), -1), ((-1, 1), None), (("nan", 1), None)])
def test_amounts_that_make_no_sense(prices, cap):
    given = {"price_in": prices[0], "price_out": prices[1], "max_cost": cap}
    with pytest.raises(ConfigError, match="Fix:"):
        read_spec("--judge", ["m", *(f"{name}={value}" for name, value in given.items() if value is not None)]).budget()


def test_the_dry_run_asks_nothing_and_knows_the_cache(server, make_judge, monkeypatch):
    pairs = couples(3)
    verify(pairs[:2], make_judge())
    asked = len(server.requests)
    monkeypatch.delenv("CONTEXTRL_TEST_KEY")
    sentence = make_judge(prices=(2, 8)).sentence(pairs)
    assert len(server.requests) == asked
    assert "4 calls to make, 2 answers already in the cache" in sentence
    assert "UTF-8 bytes" in sentence
    cost, worst = map(float, re.search(r"; ([\d.]+) \(at most ([\d.]+) without retries\)", sentence).groups())
    assert 0 < cost < worst


def test_the_bound_holds_for_a_real_tokenizer(demo_tokenizer):
    for pair in couples(2, words=400):
        messages = judge_messages(pair)
        tokens = sum(len(demo_tokenizer.encode(message["content"])) for message in messages)
        assert tokens <= input_tokens(messages)[1]
