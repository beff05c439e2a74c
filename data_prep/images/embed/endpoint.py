"""Vectors from an endpoint that speaks OpenAI's embeddings protocol and takes pictures, such as vLLM's.

Concurrency and spending cap are those of a process, so that one worker is enough, and right.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, ValidationError

from contextrl_verl.errors import ConfigError
from data_prep.images.embed.base import unit_rows
from data_prep.models.cache import digest
from data_prep.models.endpoint import Endpoint, NotAnswered, answers
from data_prep.models.spec import ModelSpec, read_spec

# messages: vLLM; input: a data URI as the text to embed, e.g. Infinity; image: {"image": URI}, e.g. Jina.
Form = Literal["messages", "input", "image"]
_VERSION = 1


class EmbedderSpec(ModelSpec):
    """An embedding model behind an endpoint; ``form`` is how a picture is put into the request."""

    base_url: str
    cache: Path | None = Path("outputs/embedding_cache")
    form: Form = "messages"


def read_embedder(words: str) -> EmbedderSpec:
    """From ``MODEL base_url=URL [NAME=VALUE ...]``; raises ConfigError as :func:`read_spec`."""
    return read_spec("--embedder endpoint:", [words], EmbedderSpec)


class EndpointEmbedder(Endpoint):
    """An embedding model behind an endpoint; one request for a picture, many at a time."""

    def __init__(self, spec: EmbedderSpec, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__(spec, environ)
        self.name = f"endpoint:{self.shown} {spec.model} {spec.form}"
        self.dimension: int | None = None

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) float32 rows of length 1; a row of NaN for a picture that the endpoint refused.

        Raises:
            ConfigError: wrong key, endpoint down, spending cap reached, malformed vectors; what came is in the cache.
        """
        if not images:
            return np.zeros((0, self.dimension or 0), dtype=np.float32)
        found = [vector for _, vector in answers(self, images, self._one)]
        lengths = {len(vector) for vector in found if vector is not None} | ({self.dimension} - {None})
        if len(lengths) > 1:
            raise ConfigError(
                f"The endpoint {self.shown} gives vectors of {' and '.join(map(str, sorted(lengths)))} dimensions for "
                f"the model {self.spec.model!r}. Fix: use one model, and a cache of its own for each."
            )
        size = next(iter(lengths), 1)
        self.dimension = size if lengths else None
        return unit_rows(np.array([np.full(size, np.nan) if row is None else row for row in found]), self.name)

    def key(self, image: Image.Image) -> str:
        """The cache key of a picture: model, form of the request, size and pixels."""
        return digest(
            {
                "embedding": _VERSION,
                "model": self.spec.model,
                "form": self.spec.form,
                "size": list(image.size),
                "mode": image.mode,
                "pixels": hashlib.sha256(image.tobytes()).hexdigest(),
            }
        )

    async def _one(self, image: Image.Image) -> np.ndarray | None:
        key = self.key(image)
        record = self.cache.read(key) if self.cache else None
        if record is not None:
            vector = _decoded(record.get("vector"))
            if vector is not None:
                self.usage.cached += 1
                return vector
            self.cache.damaged += 1
        try:
            vector = await self._asked(image)
        except NotAnswered as error:
            if error.how == "refused":
                self.count(error)
                return None
            if error.how == "failed":
                raise self.down(str(error)) from None
            raise ConfigError(
                f"The spending cap of {self.budget.cap} is reached. Vectors that came are kept in the cache. "
                "Fix: raise max_cost, and run the command again."
            ) from None
        self.answered()
        if self.cache:
            text = base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
            self.cache.write(key, {"model": self.spec.model, "vector": text})
        return vector

    async def _asked(self, image: Image.Image) -> np.ndarray:
        body, problem = picture_request(self.spec.model, image, self.spec.form), ""
        bound = (self.spec.tokens_per_image, 0)
        for _ in range(self.spec.malformed_tries):
            vector, tokens, problem = read_embedding(await self.send(partial(_post, body=body), bound))
            self.bill(tokens, bound)
            if vector is not None:
                return vector
            self.usage.malformed_replies += 1
        self.usage.malformed += 1
        raise ConfigError(
            f"{self.spec.malformed_tries} answers of the endpoint {self.shown} hold no vector; the last one: {problem}."
            " Vectors that came are kept in the cache. Fix: see that the model embeds pictures, in this form=..."
        )


async def _post(client: Any, body: dict[str, Any]) -> Any:
    import httpx

    return await client.post("/embeddings", cast_to=httpx.Response, body=body)


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


class _Tokens(BaseModel):
    prompt_tokens: NonNegativeInt


class _Usage(BaseModel):
    usage: _Tokens


class _Embedding(BaseModel):
    embedding: list[Annotated[FiniteFloat, Field(strict=True)]] = Field(min_length=1)


class _Embeddings(BaseModel):
    data: list[_Embedding] = Field(min_length=1, max_length=1)


def read_embedding(body: bytes) -> tuple[np.ndarray | None, tuple[int, int] | None, str]:
    """What an embeddings body of any quality holds; never raises.

    Returns:
        (D,) float32, finite and not zero, or None; tokens as billed, or None; why there is no vector, or empty.
    """
    try:
        tokens = (_Usage.model_validate_json(body).usage.prompt_tokens, 0)
    except ValidationError:
        tokens = None
    try:
        numbers = _Embeddings.model_validate_json(body).data[0].embedding
    except ValidationError as error:
        first = error.errors()[0]
        return None, tokens, f"field {'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg'].lower()}"
    with np.errstate(over="ignore"):
        vector = np.array(numbers, dtype=np.float64).astype(np.float32)
    if not _usable(vector):
        return None, tokens, "the embedding is infinite, or zero"
    return vector, tokens, ""


def _usable(vector: np.ndarray) -> bool:
    return bool(len(vector) and np.isfinite(vector).all() and vector.any())


def _decoded(text: Any) -> np.ndarray | None:
    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except (TypeError, ValueError):
        return None
    return vector if _usable(vector) else None
