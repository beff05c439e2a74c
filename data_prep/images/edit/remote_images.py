"""Editors behind an endpoint: cache, cap, retries, and back to one region of the original."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from collections.abc import Awaitable, Callable
from typing import Any, get_args
from urllib.parse import quote

import numpy as np
from PIL import Image
from pydantic import AliasPath, Base64Bytes, Base64UrlBytes, BaseModel, Field, ValidationError

from data_prep.images.decode import ImageRejected, open_image
from data_prep.images.edit.plan import EditPlan, NotEdited, NotReached, Operation
from data_prep.images.edit.redrawn import Frame, instruction_of, paste_edit
from data_prep.models.cache import digest
from data_prep.models.endpoint import Endpoint, MalformedReply, post

# Part of the cache key: raise it whenever the wording or the way a picture is sent changes.
_VERSION = "edit-1"


class RemoteEditor(Endpoint):
    """An editor behind an endpoint.

    A subclass has ``request(image, plan)``, what :meth:`Endpoint.send` calls, and ``picture(body)``, the encoded
    picture in an answer; that one raises MalformedReply or ValidationError if there is none.

    Attributes:
        canvases: sizes that the model knows; none if it takes all.
    """

    remote = True
    operations: frozenset[Operation] = frozenset(get_args(Operation))
    kind = ""
    canvases: list[tuple[int, int]] = []

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.spec.model} {_VERSION}"

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.plan.Editor`; the seed has no influence."""

        async def once(problem: str) -> str:
            # Encoding takes a while; meanwhile the answers of others are read.
            body = await self.send(await asyncio.to_thread(self.request, image, plan), (0, 1))
            # A price per picture: it was answered, and is billed, even if it cannot be used.
            self.budget.add((0, 1))
            try:
                return base64.b64encode(self.picture(body)).decode("ascii")
            except ValidationError:
                raise MalformedReply("the body holds no picture") from None

        def load(encoded: Any) -> Image.Image:
            try:
                answer = open_image(base64.b64decode(encoded, validate=True))
            except ImageRejected as error:
                raise MalformedReply(f"the answer is no picture ({error})") from None
            if (fitted := self.frame(image).take(answer, image.size)) is None:
                raise MalformedReply(f"a picture of {answer.size} came back for one of {self.frame(image).size}")
            return fitted

        reply = await self.reply(self.key(image, plan), once, load)
        if reply.value is None:
            if reply.how in ("malformed", "refused"):
                given_up = "no picture came back" if reply.how == "malformed" else "refused by the endpoint"
                raise NotEdited(given_up, reply.why)
            raise NotReached(reply.how, reply.why)
        return paste_edit(image, reply.value, plan)

    def key(self, image: Image.Image, plan: EditPlan) -> str:
        """The cache key of an edit."""
        pixels = [image.size, hashlib.sha256(image.tobytes()).hexdigest()]
        return digest([_VERSION, self.kind, self.spec.model, pixels, instruction_of(plan), plan.region])

    def frame(self, image: Image.Image) -> Frame:
        """The canvas a picture is sent on."""
        return Frame.around(image.size, self.canvases)


def _png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, format="PNG", compress_level=1)
    return target.getvalue()


class OpenAIEditor(RemoteEditor):
    """OpenAI's image models, or any endpoint that speaks ``images/edits``.

    The picture goes along on one of the canvases that the models know; where the plan has a region, a mask says that
    only it may be drawn on.
    """

    kind = "openai"
    canvases = [(1024, 1024), (1536, 1024), (1024, 1536)]

    def request(self, image: Image.Image, plan: EditPlan) -> Callable[[Any], Awaitable[Any]]:
        frame, request = self.frame(image), {"model": self.spec.model, "prompt": instruction_of(plan), "n": 1}
        request |= {
            "size": "{}x{}".format(*frame.size),
            "image": ("picture.png", _png(self.frame(image).put(image)), "image/png"),
        }
        if plan.region is not None:
            left, top, right, bottom = plan.region
            free = np.zeros((image.height, image.width), dtype=np.uint8)
            free[top:bottom, left:right] = 255
            mask = Image.new("RGBA", frame.size, "white")
            mask.putalpha(frame.put(Image.fromarray(free)).point(lambda level: 0 if level > 127 else 255))
            request["mask"] = ("mask.png", _png(mask), "image/png")
        return lambda client: client.images.with_raw_response.edit(**request)

    def picture(self, body: bytes) -> bytes:
        # Nothing is fetched from an address.
        return _OpenAIAnswer.model_validate_json(body).picture


class _OpenAIAnswer(BaseModel):
    picture: Base64Bytes = Field(min_length=1, validation_alias=AliasPath("data", 0, "b64_json"))


class GeminiEditor(RemoteEditor):
    """Gemini's image models, by Google's own protocol."""

    kind = "gemini"
    default_url = "https://generativelanguage.googleapis.com"
    url_variable = "GOOGLE_GEMINI_BASE_URL"

    def request(self, image: Image.Image, plan: EditPlan) -> Callable[[Any], Awaitable[Any]]:
        from openai import Omit

        picture = {
            "mimeType": "image/png",
            "data": base64.b64encode(_png(self.frame(image).put(image))).decode("ascii"),
        }
        body = {
            "contents": [{"role": "user", "parts": [{"inlineData": picture}, {"text": instruction_of(plan)}]}],
            "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]},
        }
        # Google takes its keys in a header of its own only.
        headers = {"Authorization": Omit(), "x-goog-api-key": self._key.get_secret_value()}
        return post(f"/v1beta/models/{quote(self.spec.model, safe='')}:generateContent", body, headers=headers)

    def picture(self, body: bytes) -> bytes:
        found = _GeminiAnswer.model_validate_json(body)
        if picture := next((part.data for part in found.parts if part.data), None):
            return picture
        said = [found.blocked, *(part.text for part in found.parts), found.finish]
        raise MalformedReply(f"the answer holds no picture ({next(filter(None, said), 'nothing')[:200]})")


class _GeminiPart(BaseModel):
    text: str = ""
    data: Base64UrlBytes = Field(b"", validation_alias=AliasPath("inlineData", "data"))


class _GeminiAnswer(BaseModel):
    parts: list[_GeminiPart] = Field([], validation_alias=AliasPath("candidates", 0, "content", "parts"))
    finish: str = Field("", validation_alias=AliasPath("candidates", 0, "finishReason"))
    blocked: str = Field("", validation_alias=AliasPath("promptFeedback", "blockReason"))
