"""A real HTTP server on this machine that speaks the chat-completions protocol and misbehaves on request."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "sk-test-4f1c9a77e2b84d0c-do-not-show"


def completion(content: str | None, *, tokens: tuple[int, int] | None = (100, 20), finish: str = "stop") -> dict:
    body: dict[str, Any] = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}],
    }
    if tokens:
        body["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return body


def verdict(label: str = "VALID", reason: str = "1: the log shows it", **options: Any) -> web.Response:
    return web.json_response(completion(json.dumps({"reason": reason, "label": label}), **options))


def failure(status: int, message: str = "no", headers: dict[str, str] | None = None, code: str = "") -> web.Response:
    return web.json_response({"error": {"message": message, "code": code}}, status=status, headers=headers)


RESET = object()
HANG = object()


def alone(monkeypatch: Any) -> None:
    """The key of the tests, no proxy, and a client that waits hundredths of a second where it would wait seconds."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONTEXTRL_TEST_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@dataclass
class ChatServer:
    """``reply(number, body)`` gives the answer to the request of that number (from 0): a response, RESET or HANG."""

    reply: Callable[[int, dict], Any] = lambda number, body: verdict()
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    at_a_time: int = 0
    most_at_a_time: int = 0
    delay: float = 0.0
    url: str = ""
    path: str = "/v1/chat/completions"

    async def _body(self, request: web.Request) -> dict:
        return await request.json()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        number = len(self.requests)
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        try:
            await asyncio.sleep(self.delay)
            answer = self.reply(number, body)
            if answer is RESET:
                request.transport.abort()
                await asyncio.sleep(0.01)
            if answer is HANG:
                await asyncio.sleep(30)
            return answer if isinstance(answer, web.StreamResponse) else web.Response()
        finally:
            self.at_a_time -= 1

    def __enter__(self) -> ChatServer:
        started = threading.Event()

        async def serve() -> None:
            application = web.Application(client_max_size=1 << 28)
            application.router.add_post(self.path, self._handle)
            runner = web.AppRunner(application, shutdown_timeout=0, handler_cancellation=True)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            port = site._server.sockets[0].getsockname()[1]
            self.url = f"http://127.0.0.1:{port}/v1"
            started.set()
            await self._stop.wait()
            await runner.cleanup()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
