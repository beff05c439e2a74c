"""A real HTTP server on this machine that speaks the embeddings protocol and misbehaves on request."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image


def picture_of(body: dict[str, Any]) -> Image.Image:
    """The picture in a request."""
    uri = body["messages"][0]["content"][0]["image_url"]["url"]
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def vector_of(image: Image.Image) -> np.ndarray:
    """What the server's model says: sixteen grey cells less 100."""
    return np.asarray(image.convert("L").resize((4, 4)), dtype=np.float64).reshape(-1) - 100.0


def embedding(vector: Any, tokens: int | None = 10) -> web.Response:
    numbers = vector.tolist() if isinstance(vector, np.ndarray) else vector
    body: dict[str, Any] = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": numbers}]}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return web.Response(text=json.dumps(body), content_type="application/json")


def right(number: int, body: dict[str, Any]) -> web.Response:
    return embedding(vector_of(picture_of(body)))
