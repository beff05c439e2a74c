"""Vectors from an endpoint that speaks OpenAI's embeddings protocol and takes pictures, such as vLLM's.

Concurrency and spending cap are those of a process, so that one worker is enough, and right.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from contextrl_verl.errors import ConfigError
from data_prep.images.store import encoded
from data_prep.models.cache import digest
from data_prep.models.chat import image_part
from data_prep.models.endpoint import Endpoint, MalformedReply, answers, post
from data_prep.models.spec import TOKENS_PER_IMAGE, ModelSpec, read_spec

_VERSION = 1


class EmbedderSpec(ModelSpec):
    """An embedding model behind an endpoint."""

    base_url: str
    cache: Path | None = Path("outputs/embedding_cache")
    again_if_malformed: bool = True


class EndpointEmbedder(Endpoint):
    """An embedding model as ``MODEL base_url=URL [NAME=VALUE ...]``; one request for a picture, many at a time."""

    def __init__(self, words: str) -> None:
        super().__init__(read_spec("--set embedder=endpoint:", [words], EmbedderSpec))
        self.name = f"endpoint:{self.shown} {self.spec.model}"

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) numbers; a row of NaN for a picture that the endpoint refused. Raises ConfigError: wrong key,
        endpoint down, spending cap reached, malformed vectors; what came is in the cache."""
        found = [vector for _, vector in answers(self, images, self._one)]
        lengths = sorted({len(vector) for vector in found if vector is not None})
        if len(lengths) > 1:
            raise ConfigError(
                f"The endpoint {self.shown} gives vectors of {lengths} dimensions for the model {self.spec.model!r}. "
                "Fix: use one model, and a cache of its own for each."
            )
        refused = np.full(lengths[0] if lengths else 1, np.nan)
        return np.array([refused if vector is None else vector for vector in found])

    async def _one(self, image: Image.Image) -> np.ndarray | None:
        asked = {"embedding": _VERSION, "model": self.spec.model, "size": list(image.size)}
        key = digest({**asked, "pixels": hashlib.sha256(image.tobytes()).hexdigest()})

        async def ask(_: str) -> str:
            bound, message = (TOKENS_PER_IMAGE, 0), {"role": "user", "content": [image_part(encoded(image))]}
            request = {"model": self.spec.model, "encoding_format": "float", "messages": [message]}
            body = await self.send(post("/embeddings", request), bound)
            self.bill(body, bound)
            return base64.b64encode(read_embedding(body).astype("<f4").tobytes()).decode("ascii")

        def load(text: Any) -> np.ndarray:
            return _usable(np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4"))

        reply = await self.reply(key, ask, load)
        if reply.how == "failed":
            raise self.down(reply.why)
        if reply.how in ("answered", "refused"):
            return reply.value
        problem = f"The spending cap of {self.budget.cap} is reached"
        fix = "raise max_cost, and run the command again"
        if reply.how == "malformed":
            problem = f"The endpoint {self.shown} gives no vectors: {reply.why}"
            fix = "see that the model embeds pictures"
        raise ConfigError(f"{problem}. Vectors that came are kept in the cache. Fix: {fix}.")


class _Embedding(BaseModel):
    embedding: list[Annotated[FiniteFloat, Field(strict=True)]] = Field(min_length=1)


class _Embeddings(BaseModel):
    data: list[_Embedding] = Field(min_length=1, max_length=1)


def read_embedding(body: Any) -> np.ndarray:
    """(D,) float32, finite and not zero, of an embeddings body; raises MalformedReply for everything else."""
    try:
        numbers = _Embeddings.model_validate(body).data[0].embedding
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise MalformedReply(f"field {place}: {first['msg'].lower()}") from None
    with np.errstate(over="ignore"):
        return _usable(np.array(numbers, dtype=np.float64).astype(np.float32))


def _usable(vector: np.ndarray) -> np.ndarray:
    if not (np.isfinite(vector).all() and vector.any()):
        raise MalformedReply("the embedding is infinite, or zero")
    return vector
