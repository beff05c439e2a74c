"""Editors that redraw the picture, behind an endpoint or on this machine; one region of it is taken over."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import io
from functools import lru_cache
from typing import Any, get_args
from urllib.parse import quote

import numpy as np
from PIL import Image
from pydantic import Base64Bytes, Base64UrlBytes

from contextrl_verl.errors import ConfigError
from data_prep.images.edit.plan import EditPlan, NotEdited, Offline, Operation, Region, answered
from data_prep.images.edit.redrawn import Frame, instruction_of, paste_edit
from data_prep.images.store import ImageRejected, open_image
from data_prep.models.cache import digest
from data_prep.models.endpoint import Endpoint, MalformedReply, at, post

# Part of the cache key: raise it whenever the wording or the way a picture is sent changes.
_VERSION = "edit-1"
_EVERYTHING: frozenset[Operation] = frozenset(get_args(Operation))


class RemoteEditor(Endpoint):
    """An editor behind an endpoint: cache, cap, retries.

    A subclass has ``request``, what :meth:`Endpoint.send` calls, ``picture(body)``, the encoded picture in an answer
    (raises MalformedReply), and ``canvases``, the sizes that the model knows, none if it takes all.
    """

    operations = _EVERYTHING
    kind = ""
    canvases: list[tuple[int, int]] = []

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.spec.model} {_VERSION}"

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.plan.Offline`; the seed has no influence."""
        text, frame = instruction_of(plan), Frame.around(image.size, self.canvases)
        pixels = [image.size, hashlib.sha256(image.tobytes()).hexdigest()]
        key = digest([_VERSION, self.kind, self.spec.model, pixels, text, plan.region])

        async def once(problem: str) -> str:
            # Encoding takes a while; meanwhile the answers of others are read.
            body = await self.send(await asyncio.to_thread(self.request, text, image, frame, plan.region), (0, 1))
            # A price per picture: it was answered, and is billed, even if it cannot be used.
            self.budget.add((0, 1))
            return base64.b64encode(self.picture(body)).decode("ascii")

        def load(encoded: Any) -> Image.Image:
            try:
                answer = open_image(base64.b64decode(encoded, validate=True))
            except ImageRejected as error:
                raise MalformedReply(f"the answer is no picture ({error})") from None
            if (fitted := frame.take(answer, image.size)) is None:
                raise MalformedReply(f"a picture of {answer.size} came back for one of {frame.size}")
            return fitted

        return paste_edit(image, answered(await self.reply(key, once, load), "picture"), plan)


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

    def request(self, text: str, image: Image.Image, frame: Frame, region: Region | None) -> Any:
        request = {"model": self.spec.model, "prompt": text, "n": 1, "size": "{}x{}".format(*frame.size)}
        request["image"] = ("picture.png", _png(frame.put(image)), "image/png")
        if region is not None:
            left, top, right, bottom = region
            free = np.zeros((image.height, image.width), dtype=np.uint8)
            free[top:bottom, left:right] = 255
            mask = Image.new("RGBA", frame.size, "white")
            mask.putalpha(frame.put(Image.fromarray(free)).point(lambda level: 0 if level > 127 else 255))
            request["mask"] = ("mask.png", _png(mask), "image/png")
        return lambda client: client.images.with_raw_response.edit(**request)

    def picture(self, body: Any) -> bytes:
        # Nothing is fetched from an address.
        if not (found := at(body, Base64Bytes, "data", 0, "b64_json")):
            raise MalformedReply("the body holds no picture")
        return found


class GeminiEditor(RemoteEditor):
    """Gemini's image models, by Google's own protocol."""

    kind = "gemini"
    default_url = "https://generativelanguage.googleapis.com"
    url_variable = "GOOGLE_GEMINI_BASE_URL"

    def request(self, text: str, image: Image.Image, frame: Frame, region: Region | None) -> Any:
        from openai import Omit

        data = base64.b64encode(_png(frame.put(image))).decode("ascii")
        parts = [{"inlineData": {"mimeType": "image/png", "data": data}}, {"text": text}]
        body = {
            "contents": [{"role": "user", "parts": parts}],
            "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]},
        }
        # Google takes its keys in a header of its own only.
        headers = {"Authorization": Omit(), "x-goog-api-key": self._key.get_secret_value()}
        return post(f"/v1beta/models/{quote(self.spec.model, safe='')}:generateContent", body, headers=headers)

    def picture(self, body: Any) -> bytes:
        parts = at(body, list, "candidates", 0, "content", "parts") or []
        if picture := next(filter(None, (at(part, Base64UrlBytes, "inlineData", "data") for part in parts)), None):
            return picture
        said = [at(body, str, "promptFeedback", "blockReason"), *(at(part, str, "text") for part in parts)]
        said.append(at(body, str, "candidates", 0, "finishReason"))
        raise MalformedReply(f"the answer holds no picture ({next(filter(None, said), 'nothing')[:200]})")


class DiffusersEditor(Offline):
    """An editing pipeline of diffusers (Qwen-Image-Edit, FLUX Kontext and others), loaded at its first edit.

    ``model`` is a folder, or a name on the model hub; its own code is never run. Raises ConfigError: diffusers is not
    installed, the model cannot be loaded, or it does not edit pictures.
    """

    operations = _EVERYTHING

    def __init__(self, model: str) -> None:
        self.model, self.name = model, f"diffusers:{model} {_VERSION}"

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.plan.Offline`. The same seed gives the same picture on the same device."""
        text, pipeline = instruction_of(plan), _loaded(self.model)
        import torch

        # diffusers draws the noise on the CPU from this, whatever the device.
        noise = torch.Generator("cpu").manual_seed(seed % 2**63)
        answer = pipeline(image=image, prompt=text, generator=noise).images[0].convert("RGB")
        fitted = Frame.around(image.size, []).take(answer, image.size)
        if fitted is None:
            raise NotEdited("malformed picture", f"one of {answer.size} for one of {image.size}")
        return paste_edit(image, fitted, plan)


@lru_cache(maxsize=1)
def _loaded(model: str) -> Any:
    """One pipeline in a process, however many parts it does; on the first GPU, else the CPU."""
    try:
        import torch
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise ConfigError(
            f"editor diffusers:{model} needs the package {error.name!r}. Fix: pip install diffusers transformers "
            "accelerate, or take another editor."
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        pipeline = DiffusionPipeline.from_pretrained(model, torch_dtype=kind, use_safetensors=True)
        if not {"image", "prompt"} <= set(inspect.signature(pipeline.__call__).parameters):
            raise ValueError(f"{type(pipeline).__name__} does not take a picture and a text")
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ConfigError(
            f"editor diffusers:{model}: the model cannot be used ({' '.join(str(error).split())[:300]}). Fix: a "
            "pipeline that edits pictures, stored as safetensors, such as Qwen/Qwen-Image-Edit."
        ) from None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
