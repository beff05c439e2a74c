"""When to try again: exponential back-off with jitter, or as long as the server says."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from data_prep.models.errors import RemoteError, Transient

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a request is.

    Attributes:
        attempts: requests at most, the first included.
        first_wait: seconds before the second one; doubles every time; up to as many are added at random.
        longest_wait: seconds at most between two; a server that asks for more is taken to be closed.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.first_wait <= self.longest_wait:
            raise RemoteError(f"{self} makes no sense. Fix: attempts >= 1 and 0 <= first_wait <= longest_wait.")


async def with_retries(
    call: Callable[[], Awaitable[T]], policy: RetryPolicy, before_wait: Callable[[Transient], None]
) -> T:
    """Await the call until it does not raise Transient, or the policy's attempts are used up.

    Raises:
        Transient: the last one.
    """
    import tenacity

    backoff = tenacity.wait_exponential(multiplier=policy.first_wait, max=policy.longest_wait) + tenacity.wait_random(
        0, policy.first_wait
    )

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception()
        return backoff(state) if error.retry_after is None else error.retry_after

    def patient(error: BaseException) -> bool:
        return isinstance(error, Transient) and (error.retry_after or 0) <= policy.longest_wait

    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception(patient),
        before_sleep=lambda state: before_wait(state.outcome.exception()),
        reraise=True,
    )
    return await retrying(call)


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds a response asks to wait (``retry-after-ms``, ``retry-after`` in seconds or as a date), or None."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = (headers.get(name) or "").strip()
        if not text:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - now()
            except (ValueError, TypeError):
                continue
        if seconds == seconds:
            return max(0.0, seconds)
    return None
