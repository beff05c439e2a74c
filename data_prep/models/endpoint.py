"""What stands around every request to an endpoint: concurrency, pauses, retries, the cap, and when to stop asking."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from data_prep.models.budget import Budget
from data_prep.models.cache import ReplyCache
from data_prep.models.errors import RemoteError, Transient
from data_prep.models.key import shown_url
from data_prep.models.retry import with_retries

if TYPE_CHECKING:
    from data_prep.models.chat import ChatSettings

T = TypeVar("T")
# So many refused requests without a single answer mean that the request itself is wrong, not its content.
_REFUSALS_BEFORE_STOP = 5


@dataclass
class Usage:
    """What a session of calls did.

    Attributes:
        requests: HTTP requests sent, whatever came back.
        answered: answers from the endpoint; ``cached``: from the cache.
        malformed_replies: replies that had to be asked again; ``malformed``: questions given up for that.
        retries: requests repeated, by cause.
        fallbacks: what the endpoint did not take and what was sent instead.
    """

    requests: int = 0
    answered: int = 0
    cached: int = 0
    malformed_replies: int = 0
    malformed: int = 0
    refused: int = 0
    capped: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    without_token_counts: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    fallbacks: list[str] = field(default_factory=list)


class GuardedEndpoint:
    """Base of clients; a subclass says how a request is sent and what its failures mean. One per event loop.

    Args:
        settings: where and how.
        cache: None asks everything anew.
        budget: None counts and caps nothing.
        url: address, for messages.
    """

    def __init__(self, settings: ChatSettings, cache: ReplyCache | None, budget: Budget | None, url: str) -> None:
        self.settings, self.cache, self.budget = settings, cache, budget or Budget()
        self.usage = Usage()
        self.url, self.shown = url, shown_url(url)
        self._secret: Any = None
        self._free = asyncio.Semaphore(settings.concurrency)
        self._not_before = 0.0
        self._failed_in_a_row = 0
        self._stop: RemoteError | None = None

    def _classified(self, error: Exception) -> Exception:
        """A Transient, Refused or RemoteError for what the client raised."""
        raise NotImplementedError

    async def _with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Raises Transient when the policy's attempts are used up."""

        def before_wait(error: Transient) -> None:
            self.usage.retries[error.cause] += 1
            if error.retry_after is not None:
                loop = asyncio.get_running_loop()
                self._not_before = max(self._not_before, loop.time() + error.retry_after)

        return await with_retries(attempt, self.settings.retry, before_wait)

    async def _guarded(
        self,
        send: Callable[[], Awaitable[T]],
        bound: tuple[int, int],
        billed: Callable[[T], tuple[int, int] | None],
    ) -> T:
        """One request.

        Args:
            send: sends it and reads what came back.
            bound: what it may cost at most, as input and output counts of the budget's prices.
            billed: counts that an answer was billed with; None if it does not say.

        Raises:
            CapReached: it does not fit under the cap.
            Transient, Refused, RemoteError: see :meth:`_classified`.
        """
        loop = asyncio.get_running_loop()
        async with self._free:
            while (pause := self._not_before - loop.time()) > 0:
                await asyncio.sleep(pause)
            if self._stop is not None:
                raise self._stop
            worst = await self.budget.reserve(*bound)
            counts, charged = None, True
            self.usage.requests += 1
            try:
                answer = await asyncio.wait_for(send(), self.settings.timeout)
                counts = billed(answer)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                problem = self._classified(error)
                charged = isinstance(problem, Transient) and problem.charged
                if isinstance(problem, RemoteError):
                    self._stop = problem
                raise problem from None
            finally:
                await asyncio.shield(self.budget.settle(worst, counts, charged))
        return answer

    def _count_refusal(self, why: str) -> None:
        """Raises RemoteError if it seems that every request is refused."""
        self.usage.refused += 1
        if self.usage.refused >= _REFUSALS_BEFORE_STOP and not self.usage.answered:
            self._stop = RemoteError(
                f"The endpoint {self.shown} refused {self.usage.refused} requests and answered none; the last "
                f"refusal: {why} Fix: correct the model's name or the parameters it does not take."
            )
            raise self._stop

    def _count_failure(self, error: Transient) -> None:
        """Raises RemoteError if the endpoint seems to be down."""
        self.usage.failed += 1
        self._failed_in_a_row += 1
        # One request may be at fault by itself; two in a row without an answer between them mean the endpoint.
        if self._failed_in_a_row > 1:
            self._stop = self.down(str(error))
            raise self._stop

    def down(self, why: str) -> RemoteError:
        """The paragraph for an endpoint that does not answer."""
        return RemoteError(
            f"The endpoint {self.shown} does not answer after {self.settings.retry.attempts} tries; "
            f"the last failure: {why} Answers that came are kept in the cache. Fix: see that it is up and reachable, "
            "then run the command again; it asks only what is missing."
        )
