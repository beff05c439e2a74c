"""Vision-language models of a few hundred thousand random weights, with real processors: Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import transformers

# Family -> transformers' names begin with, a patch's side, what its text and vision have of their own. The three
# sections of mrope add up to half a head.
_QWEN2_5 = {"rope_parameters": {"mrope_section": [4, 6, 6]}}, {"window_size": 112, "fullatt_block_indexes": [1]}
_QWEN3 = {"rope_parameters": {"mrope_section": [6, 5, 5], "mrope_interleaved": True}, "head_dim": 32}
_FAMILIES: dict[str, tuple[str, int, dict[str, Any], dict[str, Any]]] = {
    "qwen2_5_vl": ("Qwen2_5_VL", 14, *_QWEN2_5),
    "qwen3_vl": ("Qwen3VL", 16, _QWEN3, {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}),
}
FAMILIES = tuple(_FAMILIES)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VISION = ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]


def token_side(family: str) -> int:
    """One image token stands for this many pixels squared."""
    return 2 * _FAMILIES[family][1]


def make_processor(tokenizer, family: str = "qwen2_5_vl") -> Any:
    """The family's processor over a copy of the tokenizer: 4 to 16 tokens an image."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": VISION})
    tokenizer.chat_template = TEMPLATE
    name, patch, *_ = _FAMILIES[family]
    area = token_side(family) ** 2
    size = {"shortest_edge": 4 * area, "longest_edge": 16 * area}
    common = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2, "size": size}
    videos = transformers.Qwen2VLVideoProcessor if family == "qwen2_5_vl" else transformers.Qwen3VLVideoProcessor
    return getattr(transformers, f"{name}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**common),
        tokenizer=tokenizer,
        video_processor=videos(**common),
        chat_template=TEMPLATE,
    )


def make_model(processor, family: str = "qwen2_5_vl", folder: str | Path | None = None, seed: int = 0) -> Any:
    """A model with random weights in fp32; with a folder, also written there together with its processor.

    Two layers of text, two of vision; a head is 32 wide, which vLLM's CPU attention needs.
    """
    tokenizer, (name, patch, own_text, own_vision) = processor.tokenizer, _FAMILIES[family]
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    # With transformers' initializer_range of 0.02 outputs are nearly uniform, and a wrong image path goes unseen.
    both = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.15}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    rope = {"rope_type": "default", "rope_theta": 10000.0, **own_text["rope_parameters"]}
    text = {**both, **own_text, **ends, **layers, "vocab_size": len(tokenizer), "max_position_embeddings": 4096}
    vision = {**both, **own_vision, "depth": 2, "num_heads": 2, "out_hidden_size": 64}
    vision |= {"patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2}
    marks = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    marks |= {f"{end}_token": f"<|{end}|>" for end in ("vision_start", "vision_end")}
    config = getattr(transformers, f"{name}Config")(
        text_config=text | {"bos_token_id": None, "rope_parameters": rope},
        vision_config=vision,
        tie_word_embeddings=True,
        **{f"{mark}_id": tokenizer.convert_tokens_to_ids(token) for mark, token in marks.items()},
        **ends,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    if folder is not None:
        model.save_pretrained(str(folder))
        processor.save_pretrained(str(folder))
    return model
