"""verl's fused kernels together with FSDP: what is mended, and which models they are wrong for.

Blocker (verl#7520): verl 0.9.1 makes an untied ``lm_head`` an FSDP2 unit of its own, and its fused forward takes
``lm_head.weight`` without calling the module, so the weight is still sharded. A text model stops at once ("mixed
torch.Tensor and DTensor"); Qwen3-VL gathers it by hand, and on two ranks the head's gradient is silently wrong.
:func:`head_in_root_unit` lets the head stay in the root's unit, as tied heads do.
May go when verl does so or gathers by itself; tests/engine/test_fused_kernels.py tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.settings import listed

# Fields of a model's config by which its own forward changes logits behind the head; verl's fused forward does not
# (verl PR 7991). The value that changes nothing.
LOGIT_FIELDS = {"final_logit_softcapping": None, "logit_scale": 1, "logits_scaling": 1, "lm_head_multiplier": 1}


@contextmanager
def head_in_root_unit(config: Any) -> Iterator[None]:
    """While verl wraps a model of this config with FSDP2, its embedding and head stay in the root's unit.

    Costs the memory of both, gathered: 2.5 GB in bf16 for Qwen3-8B.
    """
    # verl asks for tied weights to decide; nothing else reads the field meanwhile.
    tied, config.tie_word_embeddings = config.tie_word_embeddings, True
    try:
        yield
    finally:
        config.tie_word_embeddings = tied


def check_fused_kernels(keys: Any, config: Any) -> None:
    """Raises ConfigError where fused kernels, if they are used, would compute something else than the model.

    Args:
        keys: ``use_fused_kernels``, ``lora_rank`` and ``target_modules`` of verl's model config, or of the job.
        config: the model's own, from transformers.
    """
    if not keys.use_fused_kernels:
        return
    for part in (config, config.get_text_config()):
        for field, neutral in LOGIT_FIELDS.items():
            value = getattr(part, field, neutral)
            if value not in (None, neutral):
                raise ConfigError(
                    f"the model's config has {field}={value}, which verl's fused kernels leave out of the logits. "
                    "Fix: actor_rollout_ref.model.use_fused_kernels=False."
                )
    targets = listed(keys.target_modules)
    if keys.lora_rank > 0 and any(name.rsplit(".", 1)[-1] == "lm_head" for name in targets):
        raise ConfigError(
            f"actor_rollout_ref.model.target_modules is {targets}, and verl's fused kernels leave out an adapter of "
            "lm_head. Fix: take lm_head out of it, or actor_rollout_ref.model.use_fused_kernels=False."
        )
