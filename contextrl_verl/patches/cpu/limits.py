"""What the CPU platform's settings leave room for, against a model: told before vLLM and verl meet it."""

from __future__ import annotations

import os
import shutil
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.settings import RunView

_BYTES = 4  # fp32, as platform/cpu.yaml sets it
_SHARED = "/dev/shm"


def check_cpu_limits(run: RunView, config: Any) -> None:
    """Raises ConfigError if a weight does not fit into verl's transfer, or a sequence into vLLM's cache.

    Args:
        config: the model's own, from transformers.
    """
    text = config.get_text_config()
    problems = []
    # The largest weight of a decoder is its embedding; verl sends the others in the same buckets.
    largest = text.vocab_size * text.hidden_size * _BYTES
    bucket = run.bucket_megabytes << 20
    needed = -(-largest // 2**20)
    if bucket and largest > bucket:
        problems.append(
            f"actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes is {bucket >> 20}, and the "
            f"model's embedding ({text.vocab_size} x {text.hidden_size} in fp32) has {needed} MiB: verl sends a weight "
            "to vLLM in one piece. Fix: actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes="
            f"{needed}."
        )
    free = shutil.disk_usage(_SHARED).free if os.path.isdir(_SHARED) else None
    if free is not None and free < max(bucket, largest):
        problems.append(
            f"{_SHARED} has {free >> 20} MiB left, and verl sends weights to vLLM through {max(bucket, largest) >> 20} "
            "MiB of it. Fix: give the container more shared memory (docker run --shm-size=2g)."
        )
    length = run.max_model_len
    cache = float(os.environ.get("VLLM_CPU_KVCACHE_SPACE") or 0) * 2**30
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    sequence = 2 * text.num_hidden_layers * heads * width * _BYTES * (length or 0)
    if cache and sequence > cache:
        problems.append(
            f"VLLM_CPU_KVCACHE_SPACE is {os.environ['VLLM_CPU_KVCACHE_SPACE']} GiB, and one sequence of "
            f"actor_rollout_ref.rollout.max_model_len={length} tokens takes {sequence / 2**30:.1f} GiB of vLLM's "
            f"cache. Fix: VLLM_CPU_KVCACHE_SPACE={int(sequence / 2**30) + 1} in the environment, or a smaller "
            "actor_rollout_ref.rollout.max_model_len."
        )
    if problems:
        raise ConfigError(*problems)
