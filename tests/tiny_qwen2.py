"""The config of a Qwen2 of a few thousand weights, for gradients. Needs no verl."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2Config

VOCABULARY = 97


def tiny_qwen2(tied: bool, **fields: Any) -> Qwen2Config:
    """Two layers; weights large enough that outputs are far from uniform."""
    return Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        **fields,
    )
