"""Language models of a hundred thousand random weights, with the demonstration's tokenizer: Qwen2 and Qwen3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from contextrl_verl.demo.tiny_model import make_model as make_qwen2
from contextrl_verl.demo.tiny_model import save

FAMILIES = ("qwen2", "qwen3")


def make_model(tokenizer: Any, family: str, folder: str | Path, seed: int = 0) -> Any:
    """Two layers, a head of 32, which vLLM's CPU attention needs; written to ``folder`` together with its tokenizer."""
    if family == "qwen2":
        return make_qwen2(folder, tokenizer, seed=seed)
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    save(model, tokenizer, folder)
    return model
