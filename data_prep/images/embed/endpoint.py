"""Vectors from an endpoint that speaks OpenAI's embeddings protocol and takes pictures, such as vLLM's.

As with the judge, every vector is paid for at most once: bounded concurrency, retries, a spending cap and a cache.
Concurrency and cap are those of a process, so that one worker is enough, and right.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from data_prep.images.embed.base import unit_rows
from data_prep.models.cache import digest
from data_prep.models.client import openai_client
from data_prep.models.endpoint import GuardedEndpoint, Usage
from data_prep.models.errors import CapReached, Refused, RemoteError, Transient
from data_prep.models.failures import classify
from data_prep.models.key import Secret, endpoint_url, read_key, shown_url
from data_prep.models.spec import EndpointRole, read_role

# messages: vLLM; input: a data URI as the text to embed, e.g. Infinity; image: {"image": URI}, e.g. Jina.
Form = Literal["messages", "input", "image"]
DEFAULT_CACHE = "outputs/embedding_cache"
_VERSION = 1


class EndpointEmbedder:
    """An embedding model behind an endpoint; one request for a picture, many at a time.

    Args:
        role: model, address, key, concurrency, retries, prices and cap, cache folder.
        form: how a picture is put into the request.
        environ: where the key is read from.

    Raises:
        RemoteError: an address, price or cap that makes no sense.
    """

    def __init__(self, role: EndpointRole, form: Form = "messages", environ: Mapping[str, str] = os.environ) -> None:
        self.role, self.form = role, form
        self.settings, self.cache, self.budget = role.settings(), role.replies(), role.budget()
        self.url = endpoint_url(role.base_url, environ)
        own = None if self.url.startswith("https://api.openai.com") else self.url
        self._read_key = lambda: read_key(role.key_variable, own, environ)
        self.name = f"endpoint:{shown_url(self.url)} {role.model} {form}"
        self.dimension: int | None = None
        self.usage = Usage()

    @classmethod
    def read(cls, words: Sequence[str], environ: Mapping[str, str] = os.environ) -> EndpointEmbedder:
        """From ``URL MODEL [NAME=VALUE ...]``; names are those of :class:`EndpointRole`, and ``form``."""
        forms = [word.partition("=")[2] for word in words if word.startswith("form=")] or ["messages"]
        if len(words) < 2 or "=" in words[1] or len(forms) > 1 or forms[0] not in get_args(Form):
            raise RemoteError(
                f"The embedding endpoint is {' '.join(words)!r}. Fix: 'endpoint:URL MODEL [NAME=VALUE ...]', with "
                f"form one of {', '.join(get_args(Form))}."
            )
        rest = [word for word in words[2:] if not word.startswith("form=")]
        if not any(word.startswith("cache=") for word in rest):
            rest.append(f"cache={DEFAULT_CACHE}")
        role = read_role("--embedder endpoint:", [f"base_url={words[0]}", f"model={words[1]}", *rest])
        return cls(role, forms[0], environ)

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) float32 rows of length 1; a row of NaN for a picture that the endpoint refused.

        Raises:
            RemoteError: wrong key, endpoint down, spending cap reached, malformed vectors; what came is in the cache.
        """
        if not images:
            return np.zeros((0, self.dimension or 0), dtype=np.float32)
        found = asyncio.run(self._all(images))
        lengths = {len(vector) for vector in found if vector is not None} | ({self.dimension} - {None})
        if len(lengths) > 1:
            raise RemoteError(
                f"The endpoint {shown_url(self.url)} gives vectors of {' and '.join(map(str, sorted(lengths)))} "
                f"dimensions for the model {self.role.model!r}. Fix: use one model, and a cache of its own for each."
            )
        size = next(iter(lengths), 1)
        rows = np.full((len(images), size), np.nan)
        for at, vector in enumerate(found):
            if vector is not None:
                rows[at] = vector
        self.dimension = size if lengths else None
        return unit_rows(rows, self.name)

    async def _all(self, images: Sequence[Image.Image]) -> list[np.ndarray | None]:
        secret, client = openai_client(self._read_key, self.url, self.settings.timeout, "judge")
        async with client:
            session = _Session(self, secret, client)
            tasks = [asyncio.ensure_future(session.one(image)) for image in images]
            try:
                return list(await asyncio.gather(*tasks))
            except BaseException:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                raise

    def key(self, image: Image.Image) -> str:
        """The cache key of a picture: model, form of the request, size and pixels."""
        pixels = hashlib.sha256(image.tobytes()).hexdigest()
        return digest(
            {
                "embedding": _VERSION,
                "model": self.role.model,
                "form": self.form,
                "size": list(image.size),
                "mode": image.mode,
                "pixels": pixels,
            }
        )


class _Session(GuardedEndpoint):
    """The requests of one event loop; counts, cache and money are the embedder's."""

    def __init__(self, owner: EndpointEmbedder, secret: Secret, client: Any) -> None:
        super().__init__(owner.settings, owner.cache, owner.budget, owner.url)
        self.budget.enter_loop()
        self.usage, self.owner, self.client = owner.usage, owner, client
        self._secret = secret

    def _classified(self, error: Exception) -> Exception:
        return classify(error, self._secret, self.shown, self.settings)

    async def one(self, image: Image.Image) -> np.ndarray | None:
        """The vector of a picture, or None if it was refused; RemoteError if there is none for another cause."""
        key = self.owner.key(image)
        record = self.cache.read(key)
        if record is not None:
            vector = _decoded(record.get("vector"))
            if vector is not None:
                self.usage.cached += 1
                return vector
            self.cache.damaged += 1
        try:
            vector = await self._with_retries(partial(self._vector, image))
        except Refused as error:
            # Among vectors that came before, a picture that is refused is itself at fault.
            if self.usage.cached:
                self.usage.refused += 1
            else:
                self._count_refusal(str(error))
            return None
        except Transient as error:
            raise self.down(str(error)) from None
        except CapReached:
            raise RemoteError(
                f"The spending cap of {self.budget.cap} is reached. Vectors that came are kept in the cache. "
                "Fix: raise max_cost, and run the command again."
            ) from None
        self.usage.answered += 1
        text = base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
        self.cache.write(key, {"model": self.settings.model, "vector": text})
        return vector

    async def _vector(self, image: Image.Image) -> np.ndarray:
        import httpx

        body = picture_request(self.settings.model, image, self.owner.form)

        async def send() -> Reading:
            return read_embedding((await self.client.post("/embeddings", cast_to=httpx.Response, body=body)).content)

        found = await self._guarded(send, (self.settings.tokens_per_image, 0), lambda found: found.tokens)
        if found.tokens is None:
            self.usage.without_token_counts += 1
        else:
            self.usage.input_tokens += found.tokens[0]
        if found.vector is None:
            self.usage.malformed_replies += 1
            raise Transient("malformed", f"{found.problem}.", charged=True)
        return found.vector


def picture_request(model: str, image: Image.Image, form: Form) -> dict[str, Any]:
    """The body of a request for one picture, which travels as PNG in a data URI."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    uri = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
    body: dict[str, Any] = {"model": model, "encoding_format": "float"}
    if form == "messages":
        part = {"type": "image_url", "image_url": {"url": uri}}
        return body | {"messages": [{"role": "user", "content": [part]}]}
    if form == "input":
        return body | {"input": [uri], "modality": "image"}
    return body | {"input": [{"image": uri}]}


@dataclass(frozen=True)
class Reading:
    """One HTTP answer of status 200, as far as it could be read.

    Attributes:
        vector: (D,) float32, finite and not zero; None if the body holds none.
        tokens: input tokens as billed, and 0; None if the body does not say.
        problem: why there is no vector; empty otherwise.
    """

    vector: np.ndarray | None
    tokens: tuple[int, int] | None = None
    problem: str = ""


def read_embedding(body: bytes) -> Reading:
    """Read an embeddings body of any quality; never raises."""
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return Reading(None, None, "the body is not JSON")
    record = record if isinstance(record, dict) else {}
    usage = record.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    tokens = (count, 0) if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None
    data = record.get("data")
    if not isinstance(data, list) or len(data) != 1 or not isinstance(data[0], dict):
        return Reading(None, tokens, "the body does not hold one embedding")
    numbers = data[0].get("embedding")
    if not isinstance(numbers, list) or not numbers or any(type(value) not in (int, float) for value in numbers):
        return Reading(None, tokens, "the embedding is not a list of numbers")
    try:
        with np.errstate(over="ignore"):
            vector = np.array(numbers, dtype=np.float64).astype(np.float32)
    except OverflowError:
        return Reading(None, tokens, "the embedding holds a number that is too large")
    if not np.isfinite(vector).all() or not vector.any():
        return Reading(None, tokens, "the embedding is infinite, or zero")
    return Reading(vector, tokens)


def _decoded(text: Any) -> np.ndarray | None:
    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except (TypeError, ValueError):
        return None
    return vector if len(vector) and np.isfinite(vector).all() and vector.any() else None
