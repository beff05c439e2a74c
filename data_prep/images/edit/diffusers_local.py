"""Edits by a local diffusion model (Qwen-Image-Edit, FLUX Kontext and other editing pipelines of diffusers)."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

from contextrl_verl.errors import ConfigError
from data_prep.images.edit.plan import EditPlan, NotEdited, Offline, Operation
from data_prep.images.edit.redrawn import Frame, instruction_of, paste_edit

if TYPE_CHECKING:
    from PIL import Image


class DiffusersEditor(Offline):
    """Loads the model at its first edit, never with code that comes along with it.

    Args:
        model: folder, or name on the model hub, of a pipeline in diffusers' own format.

    Raises:
        ConfigError: diffusers is not installed, the model cannot be loaded, or it does not edit pictures.
    """

    operations: frozenset[Operation] = frozenset(get_args(Operation))

    def __init__(self, model: str) -> None:
        self.model = model
        self.name = f"diffusers:{model} edit-1"

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.plan.Editor`. The same seed gives the same picture on the same device."""
        text, pipeline = instruction_of(plan), _loaded(self.model)
        import torch

        # diffusers draws the noise on the CPU from this, whatever the device.
        noise = torch.Generator("cpu").manual_seed(seed % 2**63)
        answer = pipeline(image=image, prompt=text, generator=noise).images[0].convert("RGB")
        fitted = Frame.around(image.size, []).take(answer, image.size)
        if fitted is None:
            raise NotEdited("no picture came back", f"one of {answer.size} for one of {image.size}")
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
