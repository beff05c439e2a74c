"""Encoders of pictures that have weights: SigLIP, CLIP and others of transformers, and those of sentence-transformers.

A model is loaded with the first picture, by its name on the hub or its folder. Its own code is never run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contextrl_verl.errors import ConfigError
from data_prep.common.pipeline import describe_inputs, fingerprint
from data_prep.images.embed.base import unit_rows
from data_prep.models.sentence_encoder import load_sentence_encoder


def model_name(kind: str, model: str) -> str:
    """``kind:model`` for fingerprints; for a folder with a digest of its files' names, sizes and times of change."""
    if not Path(model).is_dir():
        return f"{kind}:{model}"
    files = sorted(Path(at) / name for at, _, names in os.walk(model) for name in names)
    return f"{kind}:{model}@{fingerprint(describe_inputs(files))}"


class _Encoder:
    """What both kinds share.

    Args:
        model: name or folder.
        batch: pictures at a time.
    """

    kind = ""

    def __init__(self, model: str, batch: int = 16) -> None:
        self.model, self.batch = model, batch
        self.name = model_name(self.kind, model)
        self.dimension: int | None = None
        self._loaded: Any = None

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) float32 rows of length 1.

        Raises:
            ConfigError: the model cannot be loaded, or gives no vector for a picture.
        """
        if not images:
            return np.zeros((0, self.dimension or 0), dtype=np.float32)
        if self._loaded is None:
            self._loaded = self._load()
        vectors = unit_rows(self._encoded(list(images)), self.name)
        self.dimension = vectors.shape[1]
        return vectors

    def _load(self) -> Any:
        raise NotImplementedError

    def _encoded(self, images: list[Image.Image]) -> np.ndarray:
        raise NotImplementedError


class VisionEncoder(_Encoder):
    """A vision encoder of transformers: SigLIP, SigLIP 2, CLIP, or any vision model with a pooled output."""

    kind = "hf"

    def _load(self) -> Any:
        import torch
        from transformers import AutoModel

        # Not from the top: there it stands for nothing where torchvision is not installed, and none is needed.
        from transformers.models.auto.image_processing_auto import AutoImageProcessor

        try:
            # One way to shrink a picture, so that vectors do not depend on whether torchvision is installed.
            processor = AutoImageProcessor.from_pretrained(self.model, trust_remote_code=False, backend="pil")
            model = AutoModel.from_pretrained(self.model, trust_remote_code=False, dtype=torch.float32)
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(
                f"The vision encoder {self.model!r} cannot be loaded ({str(error)[:300]}). Fix: the name of a model "
                "with an image processor, or its folder on this machine."
            ) from None
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor

    def _encoded(self, images: list[Image.Image]) -> np.ndarray:
        import torch

        model, processor = self._loaded
        found = []
        with torch.inference_mode():
            for start in range(0, len(images), self.batch):
                inputs = processor(images=images[start : start + self.batch], return_tensors="pt").to(model.device)
                given = model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
                found.append(self._pooled(given).float().cpu().numpy())
        return np.concatenate(found)

    def _pooled(self, given: Any) -> Any:
        # Older releases give the features themselves, newer ones an output that holds them.
        for name in ("image_embeds", "pooler_output"):
            given = getattr(given, name, None) if getattr(given, name, None) is not None else given
        if getattr(given, "ndim", None) != 2:
            raise ConfigError(
                f"The model {self.model!r} gives no pooled vector for a picture. Fix: a vision encoder such as SigLIP "
                "or CLIP, or the same model through sentence-transformers (st:NAME)."
            )
        return given


class SentenceEncoder(_Encoder):
    """A model of sentence-transformers that takes pictures: CLIP models, Qwen3-VL-Embedding and others."""

    kind = "st"

    def _load(self) -> Any:
        return load_sentence_encoder(self.model, "--set embedder=st:NAME", ConfigError)

    def _encoded(self, images: list[Image.Image]) -> np.ndarray:
        try:
            return self._loaded.encode(images, batch_size=self.batch, convert_to_numpy=True, show_progress_bar=False)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"The model {self.model!r} does not take pictures ({str(error)[:300]}). Fix: one that does, such as a "
                "CLIP model or Qwen3-VL-Embedding."
            ) from None
