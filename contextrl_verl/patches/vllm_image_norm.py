"""A ``vllm.general_plugins`` entry point, on every platform: a rollout server sees images as they are.

Blocker: from its pull request 50411 on, vLLM normalises the pixels of Qwen2-VL and Qwen2.5-VL inside the model, with
mean and deviation in persistent buffers (``FusedInputNorm``, vllm/model_executor/models/vision.py). verl starts vLLM
with ``load_format=dummy`` and sends the weights afterwards. The dummy loader fills every entry of the state dict with
random numbers of size 1e-3, these constants too; no checkpoint holds them, so nothing restores them. The server then
sees noise instead of every image: log-probabilities of image rows are off by several nats, those of text rows right.
Here the two buffers become non-persistent: computed as before, but no part of the state.
May go when vLLM registers them so itself or its dummy loader leaves constants alone. Where vLLM has no such class,
and for models that do not use it (Qwen3-VL), nothing happens.
"""

from functools import partialmethod
from types import ModuleType

from contextrl_verl.patches.on_import import when_imported

_MODULE = "vllm.model_executor.models.vision"


def register() -> None:
    """Called by vLLM in each of its processes, before it builds a model; imports nothing of vLLM."""
    when_imported(_MODULE, _keep_constants)


def _keep_constants(module: ModuleType) -> None:
    from torch.nn import Module

    norm = getattr(module, "FusedInputNorm", None)
    if norm is not None:
        norm.register_buffer = partialmethod(Module.register_buffer, persistent=False)
