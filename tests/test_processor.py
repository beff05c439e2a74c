"""Prompts with images through a real processor, whose tokenizer adds a bos token by itself (as Gemma's and Llama's)."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from tokenizer_families import FAMILIES

from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, encode_prompt

CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}<start_of_turn>model{{ '\n' }}"
)
PATCHES = (28 // 14) ** 2


@pytest.fixture(scope="module")
def processor():
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = FAMILIES["gemma"]()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = CLIPImageProcessorPil(size={"height": 28, "width": 28}, crop_size={"height": 28, "width": 28})
    return LlavaProcessor(images, tokenizer, patch_size=14, vision_feature_select_strategy="full", chat_template=CHAT)


def test_image_tokens_are_expanded_and_the_bos_token_stands_once(processor):
    def context(colour: str) -> Context:
        Image.new("RGB", (28, 28), colour).save(stream := io.BytesIO(), "PNG")
        return Context(kind="images", images=[ImageRef(bytes=stream.getvalue())])

    pair = ContrastivePair(
        pair_id="p", domain="d", query="q", answer="a", supporting=context("red"), confounders=[context("blue")]
    )
    config, tokenizer = PromptConfig(prefill="The option is"), processor.tokenizer
    assert tokenizer("q")["input_ids"][0] == tokenizer.bos_token_id, "this tokenizer adds no bos by itself"
    ids = encode_prompt(PromptRenderer(config).messages(pair, [1, 0]), tokenizer, config, processor)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids.count(tokenizer.convert_tokens_to_ids("<image>")) == 2 * PATCHES
    ending = tokenizer("<end_of_turn>\n<start_of_turn>model\nThe option is", add_special_tokens=False)["input_ids"]
    assert ids[-len(ending) :] == ending
    assert all(type(token) is int for token in ids)


def test_a_pair_without_images_is_encoded_the_same_with_and_without_the_processor(processor):
    messages = [{"role": "user", "content": "which?"}]
    tokenizer = processor.tokenizer
    tokenizer.chat_template = CHAT
    ids = encode_prompt(messages, tokenizer, PromptConfig(), processor)
    assert ids == encode_prompt(messages, tokenizer, PromptConfig())
    assert ids.count(tokenizer.bos_token_id) == 1
