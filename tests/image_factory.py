"""A vision-language processor and image pairs, made here and now; torchvision is not needed."""

from __future__ import annotations

import io

import transformers
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from contextrl_verl.pairs import Context, ContrastivePair, ImageRef

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VISION = ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]


class _NoVideos(transformers.BaseVideoProcessor):
    """transformers' own needs torchvision, and its Qwen processors want one; no test has a video."""

    def __init__(self) -> None:
        pass


def make_processor(tokenizer) -> transformers.Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor over a copy of the tokenizer: one token for 28x28 pixels, 4 to 16 tokens an image."""
    import copy

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": VISION})
    tokenizer.chat_template = TEMPLATE
    images = Qwen2VLImageProcessorPil(
        patch_size=14, merge_size=2, temporal_patch_size=2, min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28
    )
    return transformers.Qwen2_5_VLProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=_NoVideos(), chat_template=TEMPLATE
    )


def picture(color: tuple[int, int, int], width: int, height: int) -> bytes:
    """A PNG of one color."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height), color).save(stream, "PNG")
    return stream.getvalue()


def image_pair(number: int, sizes: list[list[tuple[int, int]]]) -> ContrastivePair:
    """A pair of images of the given sizes, one list a context; every image has a color of its own."""
    contexts = [
        Context(
            kind="images",
            images=[
                ImageRef(bytes=picture((10 * number, 50 * at, 50 * image), *size)) for image, size in enumerate(shown)
            ],
        )
        for at, shown in enumerate(sizes)
    ]
    return ContrastivePair(
        pair_id=f"image{number}",
        domain="image",
        query="what is red?",
        answer="this",
        supporting=contexts[0],
        confounders=contexts[1:],
    )


def color_of(image: Image.Image) -> tuple[int, ...]:
    return image.getpixel((0, 0))
