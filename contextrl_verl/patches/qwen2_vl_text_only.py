"""Lets a micro-batch without any image pass through Qwen2-VL and Qwen2.5-VL in verl 0.9.1.

Blocker: so that every rank calls the vision tower, ``_get_input_embeds`` (verl/models/transformers/qwen2_vl.py) feeds
such a batch one blank image and adds 0 times the mean of what comes out. With transformers 5 the tower returns an
object, which has no ``mean``: AttributeError. verl unpacks the object where there are images; here it is unpacked for
the blank image too, by handing that function a model whose tower returns the tensor. Batches with images are verl's
alone. Applied by ``contextrl_verl.grpo.register``, so in processes of a ContextRL job only.
May go when verl unpacks it; tests/contracts/test_verl_vision_contracts.py tells.
"""

import functools
import sys
from typing import Any

from contextrl_verl.patches.on_import import replace

_MODULE = "verl.models.transformers.qwen2_vl"


class _TensorTower:
    """As much of a model as verl's function uses for a batch without images."""

    def __init__(self, model: Any, unpack: Any) -> None:
        self.get_input_embeddings = model.get_input_embeddings
        self.config = model.config
        self._tower, self._unpack = model.visual, unpack

    def visual(self, *args: Any, **kwargs: Any) -> Any:
        return self._unpack(self._tower(*args, **kwargs))[0]


def allow_text_only_batches() -> None:
    """Change verl's function when its module is imported; safe to call again."""
    replace(_MODULE, "_get_input_embeds", _with_blank_image)


def _with_blank_image(original):
    @functools.wraps(original)
    def get_input_embeds(model, input_ids, attention_mask=None, pixel_values=None, pixel_values_videos=None, *grids):
        if pixel_values is None and pixel_values_videos is None:
            model = _TensorTower(model, sys.modules[_MODULE].unpack_visual_output)
        return original(model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids)

    return get_input_embeds
