"""As joint_gradient.py, for a vision-language model: pairs of two and four images, image rows and text-only rows.

Rows get their tensors as in a run: the prompt from our own rendering, pixels and positions from verl's agent-loop
worker. The reference is transformers' own model, which finds positions by itself; verl replaces the forward passes of
the classes, so the reference runs with the original ones put back. Arguments: folder of the model, then its family.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import torch
import torch.distributed as dist
import transformers
from image_factory import image_pair, noise
from joint_gradient import COEF, compare, make_engine
from loop_factory import training_inputs
from pair_factory import text_pair
from verl.utils import hf_processor

from contextrl_verl.carrier import ordinary_row, pair_row
from contextrl_verl.demo.tiny_model import make_tokenizer
from contextrl_verl.options import resolve_option_tokens
from contextrl_verl.prompting import PromptConfig, PromptRenderer, encode_prompt, images_of
from contextrl_verl.smoke.vision_models import make_model, make_processor

CONFIG = PromptConfig(template="short")


def classes(family: str) -> list[type]:
    module = getattr(transformers.models, family)
    stem = {"qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[family]
    return [getattr(module, stem + part) for part in ("ForConditionalGeneration", "Model", "TextModel")]


@contextmanager
def put_back(forwards: dict[type, object]):
    patched = {kind: kind.forward for kind in forwards}
    for kind, forward in forwards.items():
        kind.forward = forward
    try:
        yield
    finally:
        for kind, forward in patched.items():
            kind.forward = forward


def make_reference(folder: str, forwards: dict[type, object]):
    """transformers' model with its own forward pass; parameters under the model's own names."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, attn_implementation="sdpa", dtype=torch.float32
    )

    def forward(input_ids, **images):
        with put_back(forwards):
            return type(model).forward(model, input_ids=input_ids, **images)

    model.forward = forward
    return model


def messages_of_row(number: int) -> list[dict]:
    """Ordinary rows: every second one shows a picture."""
    text = f"say {number % 10}"
    if number % 2:
        return [{"role": "user", "content": text}]
    parts = [{"type": "image", "image": noise(number, 56, 56 + 28 * (number % 4))}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def make_rows(processor, ordinary: int = 8) -> list[dict]:
    """Eight ordinary rows and eight pairs: two images, four images, text; mixed over ranks and mini-batches."""
    generator = torch.Generator().manual_seed(3)
    option_ids = resolve_option_tokens(processor.tokenizer, CONFIG)
    sizes = [[[(56, 56)], [(84, 56)]], [[(56, 56), (112, 56)], [(84, 84), (56, 84)]]]
    pairs = [image_pair(number, sizes[number % 2], noisy=True) for number in range(6)] + [text_pair(0), text_pair(1)]
    rows = []
    for number in range(ordinary):
        response = torch.randint(5, 300, (3 + number % 4,), generator=generator).tolist()
        advantage = float(torch.randn((), generator=generator))
        rows.append(as_row(messages_of_row(number), response, processor, advantage, ordinary_row(2), None))
    for number, pair in enumerate(pairs):
        order = [0, 1] if number % 3 else [1, 0]
        messages, supporting = PromptRenderer(CONFIG).messages(pair, order), order.index(0)
        option = torch.tensor(option_ids), supporting
        column = pair_row(option_ids, 2, supporting)
        rows.append(as_row(messages, [option_ids[supporting]], processor, 0.0, column, option))
    order = torch.randperm(len(rows), generator=generator).tolist()
    return [rows[i] for i in order]


def as_row(messages, response, processor, advantage, column, pair) -> dict:
    prompt = encode_prompt(messages, processor.tokenizer, CONFIG, processor)
    shown = {"images": images_of(messages)} if images_of(messages) else {}
    output = SimpleNamespace(
        prompt_ids=prompt,
        response_ids=response,
        multi_modal_data=shown,
        mm_processor_kwargs={},
        mm_processor_output=None,
    )
    images, positions = training_inputs(output, processor.tokenizer, processor)
    ids = torch.tensor(prompt + response)
    inputs = {name: images[name] for name in ("pixel_values", "image_grid_thw") if name in images}
    if inputs:
        inputs["mm_token_type_ids"] = (ids == processor.image_token_id).int()[None]
    return {
        "ids": ids,
        "prompt": len(prompt),
        "advantage": advantage,
        "column": column,
        "pair": pair,
        "positions": positions,
        "images": images,
        "model_inputs": inputs,
    }


def main(folder: str, family: str) -> None:
    dist.init_process_group("gloo")
    if dist.get_rank() == 0 and not os.path.exists(folder):
        processor = make_processor(make_tokenizer(), family)
        make_model(processor, family, folder)
    dist.barrier()
    processor = hf_processor(folder)
    forwards = {kind: kind.forward for kind in classes(family)}
    cases = [("token-mean", 1.0, 1, False), ("token-mean", 0.7, 4, False), ("seq-mean-token-mean", 1.0, 4, False)]
    if family == "qwen3_vl":  # Qwen2.5-VL's packed attention in verl needs flash-attn
        cases.append(("token-mean", 1.0, 4, True))
    for mode, temperature, minis, packed in cases:
        engine = make_engine(folder, "fsdp2", packed, minis == 1, COEF)
        reference = make_reference(folder, forwards)
        rows = make_rows(processor)
        error, cosine, metrics = compare(engine, reference, rows, mode, temperature, packed, minis)
        if dist.get_rank() == 0:
            pairs = [m["contextrl/pairs"].values for m in metrics]
            tower = [p.grad.abs().max().item() for name, p in reference.named_parameters() if "visual" in name]
            name = f"{family} {mode} T={temperature} {'packed' if packed else 'padded'} minis={minis}"
            case = {"case": name, "error": error, "cosine": cosine, "pairs": pairs, "tower": max(tower)}
            print(json.dumps(case), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
