"""Picture encoders of sentence-transformers: CLIP models, Qwen3-VL-Embedding and others that take pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_prep.images.embed.base import unit_rows
from data_prep.images.embed.folder import model_name
from data_prep.images.errors import ImagePairError
from data_prep.models.sentence_encoder import load_sentence_encoder


class SentenceEncoder:
    """A model by its name or folder; loaded with the first picture.

    Args:
        batch: pictures at a time.
    """

    def __init__(self, model: str, batch: int = 16) -> None:
        self.model, self.batch = model, batch
        self.name = model_name("st", model)
        self.dimension: int | None = None
        self._loaded: Any = None

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) float32 rows of length 1.

        Raises:
            ImagePairError: the model cannot be loaded, or takes no pictures.
        """
        if not images:
            return np.zeros((0, self.dimension or 0), dtype=np.float32)
        if self._loaded is None:
            self._loaded = load_sentence_encoder(self.model, "--embedder st:NAME", ImagePairError)
        try:
            found = self._loaded.encode(
                list(images), batch_size=self.batch, convert_to_numpy=True, show_progress_bar=False
            )
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ImagePairError(
                f"The model {self.model!r} does not take pictures ({' '.join(str(error).split())[:300]}). Fix: one "
                "that does, such as a CLIP model or Qwen3-VL-Embedding."
            ) from None
        vectors = unit_rows(found, self.name)
        self.dimension = vectors.shape[1]
        return vectors
