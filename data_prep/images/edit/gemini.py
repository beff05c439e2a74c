"""Edits by Gemini's image models, through the google-genai client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data_prep.images.edit.plan import EditPlan
from data_prep.images.edit.remote_images import RemoteEditor, instruction_of
from data_prep.models.budget import Budget
from data_prep.models.cache import ReplyCache
from data_prep.models.errors import RemoteError, Transient
from data_prep.models.failures import by_status
from data_prep.models.key import read_key, valid_url
from data_prep.models.reply import MalformedReply

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.models.chat import ChatSettings

KEY_VARIABLE = "GEMINI_API_KEY"
_URL = "https://generativelanguage.googleapis.com"
_HTTP_LIBRARIES = {"httpx", "httpx2", "httpcore", "aiohttp", "anyio"}
# Exceptions of the HTTP libraries that the client may use which mean that the request was never sent.
_NEVER_SENT = {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "PoolTimeout", "ClientConnectorError"}


class GeminiEditor(RemoteEditor):
    """Needs ``pip install google-genai``.

    Args:
        settings: where and how; ``model`` such as ``gemini-2.5-flash-image``.
        cache: None asks everything anew.
        budget: with :meth:`Prices.each`; None counts and caps nothing.
        environ: where the key is read from.

    Raises:
        RemoteError: on entry: no key, or the client is not installed.
    """

    kind = "gemini"

    def __init__(
        self,
        settings: ChatSettings,
        cache: ReplyCache | None = None,
        budget: Budget | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(settings, cache, budget, valid_url(settings.base_url or _URL))
        self._read_key = lambda: read_key(settings.key_variable, settings.base_url, environ)
        self._client: Any = None

    async def __aenter__(self) -> GeminiEditor:
        try:
            import tenacity  # noqa: F401
            from google import genai
            from google.genai import types
        except ImportError as error:
            raise RemoteError(
                f"Edits by Gemini need the package {error.name!r}. Fix: pip install 'contextrl-verl[edit]'."
            ) from None
        self._secret = self._read_key()
        self._types = types
        # Retries are ours: they know about the cap, and they are counted.
        options = types.HttpOptions(
            base_url=self.url,
            timeout=int(self.settings.timeout * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
        )
        self._client = genai.Client(api_key=self._secret.reveal(), vertexai=False, http_options=options)
        return self

    async def __aexit__(self, *exception: object) -> None:
        client, self._client = self._client, None
        await client.aio.aclose()

    def _request(self, image: Image.Image, plan: EditPlan) -> dict[str, Any]:
        types = self._types
        return {
            "model": self.settings.model,
            "contents": [
                types.Part.from_bytes(data=self.sent(image), mime_type="image/png"),
                types.Part.from_text(text=instruction_of(plan)),
            ],
            "config": types.GenerateContentConfig(response_modalities=["TEXT", "IMAGE"]),
        }

    async def _ask(self, request: dict[str, Any]) -> bytes:
        answer = await self._client.aio.models.generate_content(**request)
        said = ""
        for candidate in answer.candidates or []:
            for part in (candidate.content.parts if candidate.content else None) or []:
                if part.inline_data is not None and part.inline_data.data:
                    return part.inline_data.data
                said = said or (part.text or "")
            said = said or str(candidate.finish_reason or "")
        if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason is not None:
            said = f"blocked: {answer.prompt_feedback.block_reason}"
        raise MalformedReply(f"the answer holds no picture ({said[:200] or 'nothing'})")

    def _classified(self, error: Exception) -> Exception:
        from google.genai import errors
        from pydantic import ValidationError

        settings, secret = self.settings, self._secret
        name = type(error).__name__
        if isinstance(error, errors.APIError):
            headers = getattr(error.response, "headers", None) or {}
            said = " ".join(str(error.message or error.status or "").split())
            # 429 comes for a minute's rate as well as for a used-up day; both words are in the message.
            quota = error.code == 429 and "per day" in said.lower()
            if error.code == 400 and "api key" in said.lower():
                return by_status(401, said, headers, secret, self.shown, settings)
            return by_status(error.code, said, headers, secret, self.shown, settings, quota=quota)
        if isinstance(error, asyncio.TimeoutError) or "Timeout" in name:
            return Transient("timeout", f"no answer within {settings.timeout:g} seconds.", charged=True)
        if isinstance(error, ValueError | ValidationError | errors.UnknownApiResponseError | UnicodeError):
            # Cut or garbled in transit: it may have been worked on.
            said = secret.scrub(f"{name}: {error}")[:200]
            return Transient("garbled", f"the answer cannot be read ({said}).", charged=True)
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in _HTTP_LIBRARIES:
            said = secret.scrub(f"{name}: {error}")[:200]
            return Transient("connection", f"the connection failed ({said}).", charged=name not in _NEVER_SENT)
        said = secret.scrub(f"{name}: {error}")[:300]
        return RemoteError(f"A request to {self.shown} could not be made ({said}). Fix: see the settings it has.")
