"""Vision encoders of Hugging Face transformers: SigLIP, SigLIP 2, CLIP, and vision models with a pooled output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_prep.images.embed.base import unit_rows
from data_prep.images.embed.folder import model_name
from data_prep.images.errors import ImagePairError


class VisionEncoder:
    """A model by its name on the hub or its folder; loaded with the first picture. Code of a model is never run.

    Args:
        model: name or folder.
        device: of PyTorch; None for the first GPU, or the CPU without one.
        batch: pictures at a time.
    """

    def __init__(self, model: str, device: str | None = None, batch: int = 32) -> None:
        self.model, self.device, self.batch = model, device, batch
        self.name = model_name("hf", model)
        self.dimension: int | None = None
        self._loaded: tuple[Any, Any] | None = None

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) float32 rows of length 1.

        Raises:
            ImagePairError: the model cannot be loaded, or gives no vector for a picture.
        """
        import torch

        model, processor = self._load()
        found = []
        with torch.inference_mode():
            for start in range(0, len(images), self.batch):
                inputs = processor(images=list(images[start : start + self.batch]), return_tensors="pt")
                found.append(self._features(model, inputs.to(model.device)).float().cpu().numpy())
        if not found:
            return np.zeros((0, self.dimension or 0), dtype=np.float32)
        vectors = unit_rows(np.concatenate(found), self.name)
        self.dimension = vectors.shape[1]
        return vectors

    def _features(self, model: Any, inputs: Any) -> Any:
        if hasattr(model, "get_image_features"):
            found = model.get_image_features(**inputs)
        else:
            found = model(**inputs)
        # Older releases give the features themselves, newer ones an output that holds them.
        for name in ("image_embeds", "pooler_output"):
            found = getattr(found, name, None) if getattr(found, name, None) is not None else found
        if not hasattr(found, "ndim") or found.ndim != 2:
            raise ImagePairError(
                f"The model {self.model!r} gives no pooled vector for a picture. Fix: a vision encoder such as SigLIP "
                "or CLIP, or the same model through sentence-transformers (st:NAME)."
            )
        return found

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            try:
                import torch
                from transformers import AutoModel

                # Not from the top: there it stands for nothing where torchvision is not installed, and none is needed.
                from transformers.models.auto.image_processing_auto import AutoImageProcessor
            except ImportError as error:
                raise ImagePairError(
                    f"The embedder {self.name!r} needs the package {error.name!r}. Fix: pip install "
                    "'contextrl-verl[embed]'."
                ) from None
            try:
                # One way to shrink a picture, so that vectors do not depend on whether torchvision is installed.
                processor = AutoImageProcessor.from_pretrained(self.model, trust_remote_code=False, backend="pil")
                model = AutoModel.from_pretrained(self.model, trust_remote_code=False, dtype=torch.float32)
            except (OSError, ValueError, ImportError) as error:
                raise ImagePairError(
                    f"The vision encoder {self.model!r} cannot be loaded ({' '.join(str(error).split())[:300]}). Fix: "
                    "the name of a model with an image processor, or its folder on this machine."
                ) from None
            device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
            self._loaded = (model.to(device).eval(), processor)
        return self._loaded
