"""As joint_gradient.py, for a vision-language model: pairs of two and four images, image rows and text-only rows.

Rows get their tensors as in a run: the prompt from our own rendering, pixels and positions from verl's agent-loop
worker. The reference is transformers' own model, which finds positions by itself; verl replaces the forward passes of
the classes, so the reference runs with the original ones put back. Arguments: folder of the model, then its family.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import transformers
from image_factory import image_pair, noise
from loop_factory import training_inputs
from pair_factory import text_pair
from safetensors.torch import load_file, save_file
from tiny_engine import (
    ATTENTION,
    Setup,
    actor_config,
    compare,
    difference,
    gradients,
    make_engine,
    reference_loss,
    say,
    start,
)
from verl.utils import hf_processor

from contextrl_verl.demo.tiny_model import make_tokenizer
from contextrl_verl.demo.tiny_vision import make_model, make_processor
from contextrl_verl.grpo.batch_column import ordinary_row, pair_row
from contextrl_verl.pairs.option_tokens import resolve_option_tokens
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, encode_prompt, images_of

CONFIG = PromptConfig(template="short")


def classes(family: str) -> list[type]:
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    stem = {"qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[family]
    parts = ["ForConditionalGeneration", "Model", "TextModel"] + ["Attention"] * (family == "qwen2_5_vl")
    return [getattr(module, stem + part) for part in parts]


def reset(forwards: dict[type, object]) -> None:
    """Undo verl's patches of the classes; the next engine patches them anew."""
    for kind, forward in forwards.items():
        kind.forward = forward


@contextmanager
def put_back(forwards: dict[type, object]):
    patched = {kind: kind.forward for kind in forwards}
    reset(forwards)
    try:
        yield
    finally:
        reset(patched)


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


def in_both_orders(rows: list[dict], processor) -> list[dict]:
    """The rows with pairs of images in place of the pairs, each in both orders as the agent loop lays them out."""
    option_ids = resolve_option_tokens(processor.tokenizer, CONFIG)
    sizes = [[[(56, 56)], [(84, 56)]], [[(56, 56), (112, 56)], [(84, 84), (56, 84)]]]
    changed = []
    for number, row in enumerate(rows):
        if row["pair"] is None:
            changed.append(row)
            continue
        pair, shown, ids, images = image_pair(number, sizes[number % 2], noisy=True), [], [], []
        for order in ([0, 1], [1, 0]) if number % 3 else ([1, 0], [0, 1]):
            messages, label = PromptRenderer(CONFIG).messages(pair, order), option_ids[order.index(0)]
            one = as_row(messages, [label], processor, 0.0, None, None)
            shown.append({"ids": one["ids"], "order": order, "model_inputs": one["model_inputs"]})
            ids += one["ids"].tolist()
            images += images_of(messages)
        last = shown[-1]["order"].index(0)
        whole = tensors_of(ids[:-1], ids[-1:], {"images": images}, processor)
        option = torch.tensor(option_ids), None
        whole |= {"advantage": 0.0, "column": pair_row(option_ids, 2, last), "pair": option, "shown": shown}
        changed.append(whole | {"parts": [len(one["ids"]) for one in shown]})
    return changed


def as_row(messages, response, processor, advantage, column, pair) -> dict:
    prompt = encode_prompt(messages, processor.tokenizer, CONFIG, processor)
    shown = {"images": images_of(messages)} if images_of(messages) else {}
    return tensors_of(prompt, response, shown, processor) | {"advantage": advantage, "column": column, "pair": pair}


def tensors_of(prompt: list[int], response: list[int], shown: dict, processor) -> dict:
    """What verl's worker makes of a prompt with images and a response."""
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
        "positions": positions,
        "images": images,
        "model_inputs": inputs,
    }


def untie(folder: str) -> str:
    """A copy of the model whose output head has weights of its own; its folder."""
    apart = folder + "-untied"
    if dist.get_rank() == 0 and not os.path.exists(apart):
        shutil.copytree(folder, apart)
        path = Path(apart) / "config.json"
        config = json.loads(path.read_text())
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
        path.write_text(json.dumps(config))
        weights = load_file(f"{apart}/model.safetensors")
        weights["lm_head.weight"] = next(
            w for name, w in weights.items() if name.endswith("embed_tokens.weight")
        ).clone()
        save_file(weights, f"{apart}/model.safetensors", metadata={"format": "pt"})
    dist.barrier()
    return apart


def main(folder: str, family: str) -> None:
    start()
    if dist.get_rank() == 0 and not os.path.exists(folder):
        processor = make_processor(make_tokenizer(), family)
        make_model(processor, family, folder)
    dist.barrier()
    processor = hf_processor(folder)
    forwards = {kind: kind.forward for kind in classes(family)}
    cases = [
        ("token-mean", 1.0, 1, Setup(packed=False, dynamic=True)),
        ("seq-mean-token-mean", 0.7, 4, Setup(packed=False)),
        ("token-mean", 0.7, 4, Setup(packed=False, fused="torch")),
    ]
    if family == "qwen3_vl" or ATTENTION != "sdpa":  # Qwen2.5-VL's packed attention in verl is flash-attn alone
        cases += [("token-mean", 0.7, 4, Setup()), ("token-mean", 0.7, 4, Setup(fused="torch"))]
    if ATTENTION != "sdpa" and dist.get_world_size() > 1:
        cases += [("token-mean", 0.7, 4, Setup(ranks=2)), ("token-mean", 0.7, 4, Setup(ranks=2, fused="torch"))]
    both = Setup(margin="averaged", packed=family == "qwen3_vl" or ATTENTION != "sdpa")
    cases += [("token-mean", 0.7, 2, both)]
    rows = make_rows(processor)
    for mode, temperature, minis, setup in cases:
        rows = in_both_orders(rows, processor) if setup is both else rows
        engine, reference = make_engine(folder, setup), make_reference(folder, forwards)
        error, cosine, metrics = compare(engine, reference, rows, setup, mode, temperature, minis)
        reset(forwards)
        pairs = [m["contextrl/pairs"].values for m in metrics]
        tower = [p.grad.abs().max().item() for name, p in reference.named_parameters() if "visual" in name]
        name = f"{family} {mode} T={temperature} minis={minis} {'packed' if setup.packed else 'padded'}"
        name += f" fused={setup.fused} ranks={setup.ranks} {setup.margin}"
        say(case=name, error=error, cosine=cosine, pairs=pairs, tower=max(tower))
    if family == "qwen3_vl":
        untied_head(untie(folder), forwards, [row for row in rows if row["pair"] is None])
    dist.destroy_process_group()


def untied_head(folder: str, forwards, rows: list[dict]) -> None:
    """Error of the head's gradient with fused kernels and a head of its own, by our engine and by verl's."""
    for ours in (True, False):
        setup = Setup(fused="torch", ours=ours)
        engine, reference = make_engine(folder, setup), make_reference(folder, forwards)
        reference_loss(reference, rows, "token-mean", 1.0, 0.0).backward()
        with engine.train_mode():
            found, _ = gradients(engine, rows, setup, actor_config("token-mean"))
        reset(forwards)
        head = "lm_head.weight"
        error, _ = difference({head: found[head]}, {head: reference.lm_head.weight.grad})
        say(head="ours" if ours else "verl", error=error)


if __name__ == "__main__":
    main(*sys.argv[1:])
