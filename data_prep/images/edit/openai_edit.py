"""Edits by OpenAI's image models, or by any endpoint that speaks ``images/edits``."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.images.edit.plan import EditPlan
from data_prep.images.edit.remote_images import RemoteEditor, instruction_of
from data_prep.models.budget import Budget
from data_prep.models.cache import ReplyCache
from data_prep.models.client import openai_client
from data_prep.models.failures import classify
from data_prep.models.key import endpoint_url, read_key
from data_prep.models.reply import MalformedReply

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.models.chat import ChatSettings


class OpenAIEditor(RemoteEditor):
    """Needs ``pip install openai``. Arguments and errors as for :class:`data_prep.images.edit.gemini.GeminiEditor`.

    The picture goes along on one of the canvases that the models know; where the plan has a region, a mask says that
    only it may be drawn on.
    """

    kind = "openai"
    canvases = [(1024, 1024), (1536, 1024), (1024, 1536)]

    def __init__(
        self,
        settings: ChatSettings,
        cache: ReplyCache | None = None,
        budget: Budget | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(settings, cache, budget, endpoint_url(settings.base_url, environ))
        own = None if self.url.startswith("https://api.openai.com") else self.url
        self._read_key = lambda: read_key(settings.key_variable, own, environ)
        self._client: Any = None

    async def __aenter__(self) -> OpenAIEditor:
        self._secret, self._client = openai_client(self._read_key, self.url, self.settings.timeout, "edit")
        return self

    async def __aexit__(self, *exception: object) -> None:
        client, self._client = self._client, None
        await client.close()

    def _request(self, image: Image.Image, plan: EditPlan) -> dict[str, Any]:
        frame = self.frame(image)
        request: dict[str, Any] = {
            "model": self.settings.model,
            "image": ("picture.png", self.sent(image), "image/png"),
            "prompt": instruction_of(plan),
            "size": f"{frame.size[0]}x{frame.size[1]}",
            "n": 1,
        }
        if plan.region is not None:
            request["mask"] = ("mask.png", self._mask(image, plan), "image/png")
        return request

    async def _ask(self, request: dict[str, Any]) -> bytes:
        return picture_in((await self._client.images.with_raw_response.edit(**request)).content)

    def _mask(self, image: Image.Image, plan: EditPlan) -> bytes:
        """Transparent where the model may draw."""
        import io

        from PIL import Image as Pillow

        frame = self.frame(image)
        canvas = np.full((frame.size[1], frame.size[0], 4), 255, dtype=np.uint8)
        left, top, right, bottom = plan.region
        across = (frame.box[2] - frame.box[0]) / image.width
        down = (frame.box[3] - frame.box[1]) / image.height
        rows = slice(frame.box[1] + int(top * down), frame.box[1] + int(np.ceil(bottom * down)))
        columns = slice(frame.box[0] + int(left * across), frame.box[0] + int(np.ceil(right * across)))
        canvas[rows, columns, 3] = 0
        target = io.BytesIO()
        Pillow.fromarray(canvas).save(target, format="PNG")
        return target.getvalue()

    def _classified(self, error: Exception) -> Exception:
        return classify(error, self._secret, self.shown, self.settings)


def picture_in(body: bytes) -> bytes:
    """The picture of an ``images`` answer of any quality.

    Raises:
        MalformedReply: there is none; an address instead of a picture counts as none, nothing is fetched from it.
    """
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedReply("the body is not JSON") from None
    data = record.get("data") if isinstance(record, dict) else None
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    encoded = first.get("b64_json")
    if not isinstance(encoded, str) or not encoded:
        other = "an address instead of a picture" if first.get("url") else "no picture"
        raise MalformedReply(f"the body holds {other}")
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise MalformedReply("the picture is not base64") from None
