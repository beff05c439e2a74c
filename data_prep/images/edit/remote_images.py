"""Editors behind an endpoint: cache, cap, retries, and back to one region of the original."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

import numpy as np
from pydantic import AliasPath, Base64Bytes, Base64UrlBytes, BaseModel, Field, ValidationError

from data_prep.images.decode import ImageRejected, open_image
from data_prep.images.edit.base import NotReached
from data_prep.images.edit.blend import Frame, changed_region, paste_region, refuse_restyled, same_shape
from data_prep.images.edit.plan import EditPlan, NotEdited, Operation, seen_region
from data_prep.models.cache import digest
from data_prep.models.endpoint import Endpoint, MalformedReply, NotAnswered

if TYPE_CHECKING:
    from PIL import Image

# Part of the cache key: raise it whenever the wording or the way a picture is sent changes.
_VERSION = "edit-1"
_FORMS = {
    "recolour": "Change the colour of the {target}.",
    "move": "Move the {target} to another place.",
    "erase": "Remove the {target} and fill its place with what is around it.",
    "add": "Add {target}.",
    "replace": "Replace the {target}.",
    "reletter": "Change the text of the {target}.",
}
_CARE = (
    "Change nothing else: keep the framing, the size, the light, the sharpness and the style of the picture, and every "
    "other detail, exactly as they are. The change must look as if it had always been there."
)


def instruction_of(plan: EditPlan) -> str:
    """The text that a generative editor gets.

    Raises:
        NotEdited: the plan does not say what to do.
    """
    text = plan.instruction.strip()
    if not text and plan.operation in _FORMS and plan.target.strip():
        text = _FORMS[plan.operation].format(target=plan.target.strip())
    if not text:
        raise NotEdited("no instruction", plan.operation)
    place = ""
    if plan.region is not None:
        left, top, right, bottom = plan.region
        place = f" It lies between the pixels ({left}, {top}) and ({right}, {bottom})."
    return f"{text}{place} {_CARE}"


class RemoteEditor(Endpoint):
    """An editor behind an endpoint; a subclass sends the request and finds the picture in the answer.

    Attributes:
        canvases: sizes that the model knows; None if it takes all.
    """

    remote = True
    operations: frozenset[Operation] = frozenset(get_args(Operation))
    kind = ""
    canvases: list[tuple[int, int]] | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.spec.model} {_VERSION}"

    def _request(self, image: Image.Image, plan: EditPlan) -> dict[str, Any]:
        """What is sent."""
        raise NotImplementedError

    async def _call(self, client: Any, request: dict[str, Any]) -> Any:
        """The response to one request."""
        raise NotImplementedError

    def _picture(self, body: bytes) -> bytes:
        """The encoded picture in an answer. Raises MalformedReply if there is none."""
        raise NotImplementedError

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.base.Editor`; the seed has no influence."""
        key = self.key(image, plan)
        record = self.cache.read(key) if self.cache else None
        answer = self._stored(record, image)
        if answer is not None:
            self.usage.cached += 1
        elif record is not None and record.get("how") == "malformed" and not self.spec.again_if_malformed:
            self.usage.cached += 1
            raise NotEdited("no picture came back", str(record.get("why")))
        else:
            answer = await self._asked(key, image, plan)
        region = seen_region(plan.region, image) if plan.region is not None else changed_region(image, answer)
        refuse_restyled(image, answer, region)
        return paste_region(image, answer, region)

    def key(self, image: Image.Image, plan: EditPlan) -> str:
        """The cache key of an edit."""
        return digest(
            {
                "version": _VERSION,
                "editor": self.kind,
                "model": self.spec.model,
                "parameters": {},
                "image": [image.size, hashlib.sha256(image.tobytes()).hexdigest()],
                "instruction": instruction_of(plan),
                "region": plan.region,
                "mask": None if plan.mask is None else base64.b64encode(plan.mask).decode("ascii"),
            }
        )

    def is_stored(self, image: Image.Image, plan: EditPlan) -> bool:
        """Whether the edit costs nothing."""
        return self.cache is not None and self.cache.read(self.key(image, plan)) is not None

    def _stored(self, record: dict[str, Any] | None, image: Image.Image) -> Image.Image | None:
        if record is None or record.get("how") != "answered":
            return None
        try:
            return self._fitted(base64.b64decode(str(record.get("image")), validate=True), image)
        except (MalformedReply, binascii.Error):
            self.cache.damaged += 1
            return None

    async def _asked(self, key: str, image: Image.Image, plan: EditPlan) -> Image.Image:
        problem, record = "", {"model": self.spec.model}
        # Encoding takes a while; meanwhile the answers of others are read.
        request = await asyncio.to_thread(self._request, image, plan)
        for _ in range(self.spec.malformed_tries):
            try:
                body = await self.send(lambda client: self._call(client, request), (0, 1))
            except NotAnswered as error:
                self.count(error)
                if error.how == "refused":
                    raise NotEdited("refused by the endpoint", str(error)) from None
                raise NotReached(error.how, str(error)) from None
            # A price per picture: it was answered, and is billed, even if it cannot be used.
            self.budget.add((0, 1))
            try:
                data = self._picture(body)
                answer = self._fitted(data, image)
            except MalformedReply as error:
                self.usage.malformed_replies += 1
                problem = self.scrub(str(error))
                continue
            self.answered()
            if self.cache:
                encoded = base64.b64encode(data).decode("ascii")
                self.cache.write(key, record | {"how": "answered", "image": encoded})
            return answer
        self.usage.malformed += 1
        why = f"{self.spec.malformed_tries} answers without a usable picture; the last one: {problem}"
        if self.cache:
            self.cache.write(key, record | {"how": "malformed", "why": why})
        raise NotEdited("no picture came back", why)

    def frame(self, image: Image.Image) -> Frame | None:
        """The canvas a picture is sent on, if the model knows a few sizes only."""
        return None if self.canvases is None else Frame.around(image.size, self.canvases)

    def sent(self, image: Image.Image) -> bytes:
        """The picture as PNG, as it is sent."""
        frame = self.frame(image)
        target = io.BytesIO()
        (image if frame is None else frame.put(image)).save(target, format="PNG", compress_level=1)
        return target.getvalue()

    def _fitted(self, data: bytes, image: Image.Image) -> Image.Image:
        """The answer in the size of the original. Raises MalformedReply if it is no picture, or of another shape."""
        from PIL import Image as Pillow

        try:
            answer = open_image(data)
        except ImageRejected as error:
            raise MalformedReply(f"the answer is no picture ({error})") from None
        frame = self.frame(image)
        wanted = image.size if frame is None else frame.size
        if not same_shape(answer.size, wanted):
            raise MalformedReply(f"a picture of {answer.size} came back for one of {wanted}")
        if frame is not None:
            return frame.take(answer, image.size)
        return answer if answer.size == image.size else answer.resize(image.size, Pillow.Resampling.LANCZOS)


class OpenAIEditor(RemoteEditor):
    """OpenAI's image models, or any endpoint that speaks ``images/edits``.

    The picture goes along on one of the canvases that the models know; where the plan has a region, a mask says that
    only it may be drawn on.
    """

    kind = "openai"
    canvases = [(1024, 1024), (1536, 1024), (1024, 1536)]

    def _request(self, image: Image.Image, plan: EditPlan) -> dict[str, Any]:
        frame = self.frame(image)
        request: dict[str, Any] = {
            "model": self.spec.model,
            "image": ("picture.png", self.sent(image), "image/png"),
            "prompt": instruction_of(plan),
            "size": f"{frame.size[0]}x{frame.size[1]}",
            "n": 1,
        }
        if plan.region is not None:
            request["mask"] = ("mask.png", self._mask(image, plan), "image/png")
        return request

    async def _call(self, client: Any, request: dict[str, Any]) -> Any:
        return await client.images.with_raw_response.edit(**request)

    def _picture(self, body: bytes) -> bytes:
        try:
            found = _OpenAIAnswer.model_validate_json(body)
        except ValidationError:
            raise MalformedReply("the body holds no picture") from None
        # Nothing is fetched from an address.
        return found.data[0].b64_json

    def _mask(self, image: Image.Image, plan: EditPlan) -> bytes:
        """Transparent where the model may draw."""
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


class _OpenAIPicture(BaseModel):
    b64_json: Base64Bytes = Field(min_length=1)


class _OpenAIAnswer(BaseModel):
    data: list[_OpenAIPicture] = Field(min_length=1)


class GeminiEditor(RemoteEditor):
    """Gemini's image models, by Google's own protocol."""

    kind = "gemini"
    default_url = "https://generativelanguage.googleapis.com"
    url_variable = "GOOGLE_GEMINI_BASE_URL"

    def _request(self, image: Image.Image, plan: EditPlan) -> dict[str, Any]:
        picture = {"mimeType": "image/png", "data": base64.b64encode(self.sent(image)).decode("ascii")}
        return {
            "contents": [{"role": "user", "parts": [{"inlineData": picture}, {"text": instruction_of(plan)}]}],
            "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]},
        }

    async def _call(self, client: Any, request: dict[str, Any]) -> Any:
        import httpx
        from openai import Omit

        # Google takes its keys in a header of its own only.
        headers = {"Authorization": Omit(), "x-goog-api-key": self._key.get_secret_value()}
        path = f"/v1beta/models/{quote(self.spec.model, safe='')}:generateContent"
        return await client.post(path, cast_to=httpx.Response, body=request, options={"headers": headers})

    def _picture(self, body: bytes) -> bytes:
        try:
            found = _GeminiAnswer.model_validate_json(body)
        except ValidationError:
            raise MalformedReply("the body is no answer of Gemini") from None
        said = f"blocked: {found.blocked}" if found.blocked else ""
        for candidate in found.candidates:
            for part in candidate.parts:
                if part.data:
                    return part.data
                said = said or part.text
            said = said or candidate.finish
        raise MalformedReply(f"the answer holds no picture ({said[:200] or 'nothing'})")


class _GeminiPart(BaseModel):
    text: str = ""
    data: Base64UrlBytes = Field(b"", validation_alias=AliasPath("inlineData", "data"))


class _GeminiCandidate(BaseModel):
    parts: list[_GeminiPart] = Field([], validation_alias=AliasPath("content", "parts"))
    finish: str = Field("", validation_alias="finishReason")


class _GeminiAnswer(BaseModel):
    candidates: list[_GeminiCandidate] = []
    blocked: str = Field("", validation_alias=AliasPath("promptFeedback", "blockReason"))
