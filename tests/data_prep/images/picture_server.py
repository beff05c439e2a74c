"""The server of the chat tests, speaking the protocols of image editors as well."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web
from chat_server import ChatServer
from PIL import Image

RED, BLUE = (200, 30, 30), (30, 60, 200)
BOX = (40, 30, 80, 70)


def scene(colour=RED, size=(120, 96)) -> Image.Image:
    """A square with soft edges on a textured ground."""
    from scipy import ndimage

    noise = np.random.default_rng(3).standard_normal((size[1], size[0], 3))
    ground = 140 + 12 * ndimage.gaussian_filter(noise, (1, 1, 0))
    left, top, right, bottom = BOX
    inside = np.zeros((size[1], size[0]))
    inside[top:bottom, left:right] = 1
    share = ndimage.gaussian_filter(inside, 0.6)[..., None]
    pixels = ground * (1 - share) + (np.array(colour) + ground - 140) * share
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def recoloured(sent: bytes) -> Image.Image:
    """What a good model gives: the picture it was sent, red things blue."""
    with Image.open(io.BytesIO(sent)) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(float)
    share = np.clip((pixels[..., 0] - pixels[..., 1] - 20) / 150, 0, 1)[..., None]
    return Image.fromarray(np.clip(pixels + share * (np.array(BLUE) - RED), 0, 255).astype(np.uint8))


def openai_answer(data: bytes) -> web.Response:
    return web.json_response({"created": 1, "data": [{"b64_json": base64.b64encode(data).decode()}]})


def gemini_answer(data: bytes, text: str = "Here it is.") -> web.Response:
    parts: list[dict[str, Any]] = [{"text": text}]
    if data:
        parts.append({"inlineData": {"mimeType": "image/png", "data": base64.b64encode(data).decode()}})
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
    return web.json_response({"candidates": [candidate]})


def sent_picture(body: dict) -> bytes:
    """The picture in a request of either protocol."""
    if "image" in body:
        return body["image"]
    (data,) = [part["inlineData"]["data"] for part in body["contents"][0]["parts"] if "inlineData" in part]
    # The client writes base64 in its own alphabet.
    return base64.b64decode(data.replace("-", "+").replace("_", "/") + "==")


@dataclass
class PictureServer(ChatServer):
    path: str = "/{any:.*}"
    asked: list[str] = field(default_factory=list)

    async def _body(self, request: web.Request) -> dict:
        self.asked.append(request.path)
        if request.content_type == "application/json":
            return await request.json()
        form = await request.post()
        return {name: value.file.read() if hasattr(value, "file") else value for name, value in form.items()}
