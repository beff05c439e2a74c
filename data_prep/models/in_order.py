"""Many questions in work at a time, answers in the order of the questions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

# Questions in work beyond those the endpoint answers at a time, so that one slow answer does not stop the others.
AHEAD = 64


async def in_order(
    questions: Iterable[Question], ask: Callable[[Question], Awaitable[Answer]], ahead: int = AHEAD
) -> AsyncIterator[tuple[Question, Answer]]:
    """Each question with its answer; at most ``ahead`` are in work, and the rest is not yet read."""
    running: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
    try:
        for question in questions:
            running.append((question, asyncio.ensure_future(ask(question))))
            await asyncio.sleep(0)
            while len(running) >= ahead or (running and running[0][1].done()):
                first, task = running.popleft()
                yield first, await task
        while running:
            first, task = running.popleft()
            yield first, await task
    finally:
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)
