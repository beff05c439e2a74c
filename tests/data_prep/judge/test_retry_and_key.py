"""The parts below the client, used alone."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import time

import pytest

from data_prep.models.errors import RemoteError, Transient
from data_prep.models.key import Secret, shown_url
from data_prep.models.retry import RetryPolicy, with_retries


def run(failures, policy):
    """Retry a call that fails in these ways before it succeeds; the moments of the calls, and what was waited for."""
    moments, waited, left = [], [], list(failures)

    async def call():
        moments.append(time.monotonic())
        if left:
            raise left.pop(0)
        return "done"

    async def retry():
        return await with_retries(call, policy, waited.append)

    try:
        result = asyncio.run(retry())
    except Exception as error:
        result = error
    return result, moments, waited


def test_the_servers_wait_goes_before_ones_own():
    result, moments, waited = run([Transient("429", "", 0.4)], RetryPolicy(3, 0.0, 1.0))
    assert result == "done"
    assert moments[1] - moments[0] >= 0.4
    assert [error.cause for error in waited] == ["429"]


def test_waits_double():
    result, moments, _ = run([Transient("500", "")] * 3, RetryPolicy(4, 0.05, 10.0))
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert result == "done"
    assert all(gap >= least for gap, least in zip(gaps, (0.05, 0.1, 0.2), strict=True))


def test_attempts_are_counted_with_the_first_and_other_errors_go_through():
    result, moments, _ = run([Transient("500", "last")] * 9, RetryPolicy(3, 0.0, 0.0))
    assert (str(result), len(moments)) == ("last", 3)
    result, moments, _ = run([RemoteError("no")], RetryPolicy(3, 0.0, 0.0))
    assert (str(result), len(moments)) == ("no", 1)


@pytest.mark.parametrize("values", [(0, 1, 2), (1, 3, 2), (1, -1, 2)])
def test_a_policy_that_makes_no_sense(values):
    with pytest.raises(RemoteError, match="Fix:"):
        RetryPolicy(*values)


@pytest.mark.parametrize("key", ["short", "abcd+/efgh==ijkl", "sk-0123456789abcdef"])
def test_a_key_of_any_kind_is_scrubbed(key):
    secret = Secret(key)
    assert secret.scrub(f"a {key} b {key}") == "a <API key> b <API key>"
    assert key not in repr(secret) + str(secret) + f"{secret}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


def test_a_local_servers_stand_in_for_a_key_is_an_ordinary_word():
    assert Secret("none").scrub("none of them") == "none of them"


def test_an_address_is_shown_without_its_password():
    assert shown_url("https://me:secret@host:8000/v1?token=1") == "https://host:8000/v1"
