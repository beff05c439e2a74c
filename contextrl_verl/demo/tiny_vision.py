"""Vision-language models of a few hundred thousand random weights, with real processors: Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import transformers

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VISION = ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
PATCH = {"qwen2_5_vl": 14, "qwen3_vl": 16}


def token_side(family: str) -> int:
    """One image token stands for this many pixels squared."""
    return 2 * PATCH[family]


def make_processor(tokenizer, family: str = "qwen2_5_vl") -> Any:
    """The family's processor over a copy of the tokenizer: 4 to 16 tokens an image."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": VISION})
    tokenizer.chat_template = TEMPLATE
    area = token_side(family) ** 2
    size = {"shortest_edge": 4 * area, "longest_edge": 16 * area}
    common = {"patch_size": PATCH[family], "merge_size": 2, "temporal_patch_size": 2, "size": size}
    kinds: dict[str, Any] = {
        "qwen2_5_vl": (transformers.Qwen2_5_VLProcessor, transformers.Qwen2VLVideoProcessor),
        "qwen3_vl": (transformers.Qwen3VLProcessor, transformers.Qwen3VLVideoProcessor),
    }
    processor, videos = kinds[family]
    return processor(
        image_processor=transformers.Qwen2VLImageProcessor(**common),
        tokenizer=tokenizer,
        video_processor=videos(**common),
        chat_template=TEMPLATE,
    )


def make_config(tokenizer, family: str, init: float = 0.15) -> Any:
    """Two layers of text, two of vision; a head is 32 wide, which vLLM's CPU attention needs.

    With transformers' initializer_range of 0.02 outputs are nearly uniform, and a wrong image path goes unseen.
    """
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "initializer_range": init,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # The three sections add up to half a head.
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "patch_size": PATCH[family],
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
        "initializer_range": init,
    }
    if family == "qwen2_5_vl":
        vision |= {"window_size": 112, "fullatt_block_indexes": [1]}
        config = transformers.Qwen2_5_VLConfig
    else:
        text |= {"head_dim": 32}
        text["rope_parameters"] |= {"mrope_section": [6, 5, 5], "mrope_interleaved": True}
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        config = transformers.Qwen3VLConfig
    return config(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_model(processor, family: str = "qwen2_5_vl", folder: str | Path | None = None, seed: int = 0) -> Any:
    """Model with random weights in fp32; with a folder, also written there together with its processor."""
    config = make_config(processor.tokenizer, family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    if folder is not None:
        model.save_pretrained(str(folder))
        processor.save_pretrained(str(folder))
    return model
