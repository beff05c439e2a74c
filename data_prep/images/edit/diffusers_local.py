"""Edits by a local diffusion model (Qwen-Image-Edit, FLUX Kontext and other editing pipelines of diffusers)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from contextrl_verl.errors import ConfigError
from data_prep.images.edit.base import Offline
from data_prep.images.edit.blend import changed_region, paste_region, refuse_restyled, same_shape
from data_prep.images.edit.plan import EditPlan, NotEdited, Operation, seen_region
from data_prep.images.edit.remote_images import instruction_of

if TYPE_CHECKING:
    from PIL import Image


class DiffusersEditor(Offline):
    """Loads the model at its first edit, never with code that comes along with it.

    Args:
        model: folder, or name on the model hub, of a pipeline in diffusers' own format.
        device: as torch names it; None for the first GPU, else the CPU.
        steps: of denoising; None for the pipeline's own number.

    Raises:
        ConfigError: diffusers is not installed, the model cannot be loaded, or it does not edit pictures.
    """

    operations: frozenset[Operation] = frozenset(get_args(Operation))

    def __init__(self, model: str, device: str | None = None, steps: int | None = None) -> None:
        self.model, self.device, self.steps = model, device, steps
        self.name = f"diffusers:{model} steps={steps} edit-1"
        self._pipeline: Any = None

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.base.Editor`. The same seed gives the same picture on the same device."""
        text = instruction_of(plan)
        pipeline = self._loaded()
        import torch

        # diffusers draws the noise on the CPU from this, whatever the device.
        options: dict[str, Any] = {"generator": torch.Generator("cpu").manual_seed(seed % 2**63)}
        if self.steps is not None:
            options["num_inference_steps"] = self.steps
        answer = pipeline(image=image, prompt=text, **options).images[0].convert("RGB")
        if not same_shape(answer.size, image.size):
            raise NotEdited("no picture came back", f"one of {answer.size} for one of {image.size}")
        if answer.size != image.size:
            answer = answer.resize(image.size, 1)  # Lanczos
        region = seen_region(plan.region, image) if plan.region is not None else changed_region(image, answer)
        refuse_restyled(image, answer, region)
        return paste_region(image, answer, region)

    def _loaded(self) -> Any:
        if self._pipeline is not None:
            return self._pipeline
        try:
            import torch
            from diffusers import DiffusionPipeline
        except ImportError as error:
            raise ConfigError(
                f"editor diffusers:{self.model} needs the package {error.name!r}. Fix: pip install diffusers "
                "transformers accelerate, or take another editor."
            ) from None
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind = torch.float32 if device == "cpu" else torch.bfloat16
        try:
            pipeline = DiffusionPipeline.from_pretrained(self.model, torch_dtype=kind, use_safetensors=True)
        except (OSError, ValueError, ImportError, AttributeError) as error:
            said = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"editor diffusers:{self.model}: the model cannot be loaded ({said}). Fix: give the folder or name of "
                "a pipeline that is stored as safetensors, such as Qwen/Qwen-Image-Edit."
            ) from None
        import inspect

        if not {"image", "prompt"} <= set(inspect.signature(pipeline.__call__).parameters):
            raise ConfigError(
                f"editor diffusers:{self.model}: {type(pipeline).__name__} does not take a picture and a text. Fix: "
                "take a pipeline that edits pictures."
            )
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline.to(device)
        return self._pipeline
