"""The cap is never exceeded, whatever runs at a time; the dry run tells what would be spent."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from chat_server import HANG, verdict
from judged_pairs import couples

from data_prep.models.budget import Budget, Prices
from data_prep.models.errors import CapReached, RemoteError
from data_prep.verify.verify import incomplete, verify


def billed(server) -> Decimal:
    """What the server would write on the bill: every answer at 3,000 input and 50 output tokens."""
    return len(server.requests) * Prices.of(2, 8).cost(3000, 50)


@pytest.mark.parametrize("concurrency", [1, 16])
def test_the_cap_holds_under_concurrency(server, make_judge, concurrency):
    server.reply, server.delay = lambda number, body: verdict(tokens=(3000, 50)), 0.01
    pairs = couples(40)
    judge = make_judge(prices=(2, 8), cap="0.1", concurrency=concurrency)
    result = verify(pairs, judge)
    usage = judge.summary()
    assert billed(server) == Decimal(str(usage["spent"])) <= Decimal("0.1")
    # It stops for the cap's sake, not long before it: what is left is less than one request's worst case.
    assert usage["spent"] > 0.1 - 0.03
    assert usage["answered"] + result.unjudged["spending cap"] == 80
    assert usage["capped"] == result.unjudged["spending cap"]
    assert "spending cap" in str(incomplete(result))
    assert "--max-cost" in str(incomplete(result))


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
    judge = make_judge(prices=(1, 1), cap="0.02", timeout=0.2, attempts=2, concurrency=2)
    assert verify(couples(10), judge).unjudged["spending cap"] >= 18
    assert 0 < judge.summary()["spent"] <= 0.02
    assert len(server.requests) <= 4


def test_an_answer_without_token_counts_costs_its_worst_case(server, make_judge):
    server.reply = lambda number, body: verdict(tokens=None)
    judge = make_judge(prices=(1, 1), cap=1)
    verify(couples(1), judge)
    usage = judge.summary()
    assert usage["spent"] == usage["of_it_at_worst_case"] > 2 * 2048e-6
    assert usage["without_token_counts"] == 2


def test_a_bill_above_the_worst_case_is_counted_and_the_next_reservation_grows():
    async def run():
        budget = Budget(Prices.of(1, 1), cap=10)
        first = await budget.reserve(100, 100)
        await budget.settle(first, (1000, 1000))
        assert budget.over_worst_case == 1
        assert await budget.reserve(100, 100) == pytest.approx(Decimal("0.002"))

    asyncio.run(run())


def test_a_reservation_waits_for_running_requests_before_it_gives_up():
    async def run():
        budget = Budget(Prices.of(1_000_000, 0), cap=10)
        first = await budget.reserve(8, 0)
        second = asyncio.create_task(budget.reserve(5, 0))
        await asyncio.sleep(0.01)
        assert not second.done()
        await budget.settle(first, (2, 0))
        assert await second == 5
        await budget.settle(Decimal(5), (5, 0))
        with pytest.raises(CapReached):
            await budget.reserve(4, 0)
        assert await budget.reserve(3, 0) == 3

    asyncio.run(run())


@pytest.mark.parametrize(("prices", "cap"), [(None, 1), ((1, 1), -1), ((-1, 1), None), (("nan", 1), None)])
def test_amounts_that_make_no_sense(prices, cap):
    with pytest.raises(RemoteError, match="Fix:"):
        Budget(Prices.of(*prices) if prices else None, cap)


def test_the_dry_run_asks_nothing_and_knows_the_cache(server, make_judge, monkeypatch):
    pairs = couples(3)
    verify(pairs[:2], make_judge())
    asked = len(server.requests)
    monkeypatch.delenv("CONTEXTRL_TEST_KEY")
    estimate = make_judge(prices=(2, 8)).estimate(pairs)
    assert len(server.requests) == asked
    assert (estimate.calls, estimate.cached) == (4, 2)
    assert estimate.cost == Prices.of(2, 8).cost(estimate.input_tokens, estimate.output_tokens)
    assert estimate.cost < estimate.worst_case
    counted = make_judge().estimate(pairs, lambda text: len(text.split()))
    assert counted.input_tokens != estimate.input_tokens
    assert "tokenizer" in counted.how
    assert "UTF-8 bytes" in estimate.sentence()


def test_the_bound_holds_for_a_real_tokenizer(demo_tokenizer):
    from data_prep.models.tokens import input_bound
    from data_prep.verify.prompt import judge_messages
    from data_prep.verify.verdict import Verdict

    for pair in couples(2, words=400):
        messages = judge_messages(pair)
        tokens = sum(len(demo_tokenizer.encode(message["content"])) for message in messages)
        assert tokens <= input_bound(messages, Verdict, 0)
