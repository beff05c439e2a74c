"""Supervised training on selections: tokens, loss mask, order, images, and what is refused. The run is in e2e."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from image_factory import image_pair
from omegaconf import OmegaConf
from pair_factory import text_pair
from tokenizer_families import FAMILIES
from torch.utils.data import DistributedSampler

from contextrl_verl.demo.tiny_vision import make_model, make_processor
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.files import write_pairs
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, encode_prompt, option_order
from contextrl_verl.sft.dataset import SelectionDataset, before_sampler, end_of_turn, selection_order

PROMPT = PromptConfig(template="short")


def open_dataset(folder, rows, tokenizer, processor=None, batch=4, held_out=False, **contextrl):
    """The data set as verl's trainer makes it."""
    train, held = str(folder / "train.parquet"), str(folder / "held.parquet")
    write_pairs(rows, held if held_out else train)
    block = {"objective": "none", "prompt": {"template": "short"}, **contextrl}
    block["pairs"] = {"train_files": [train], "val_files": [held], **block.get("pairs", {})}
    block["run"] = {"train_batch_size": batch, "max_prompt_length": 300, **block.get("run", {})}
    config = OmegaConf.create({"train_files": [train], "val_files": [held], "contextrl": block})
    files = config.val_files if held_out else config.train_files
    return SelectionDataset(files, tokenizer, config, processor=processor)


def as_read(dataset) -> list[dict]:
    """The items in the order in which verl's trainer reads them."""
    return [dataset[index] for index in DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True)]


def pair_numbers(dataset) -> list[int]:
    read = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True)
    return [dataset.items[index].index for index in read]


def test_an_item_is_the_prompt_of_grpo_the_supporting_label_and_the_end_of_the_turn(tmp_path, verl_tokenizer):
    pairs = [text_pair(number) for number in range(8)]
    dataset = open_dataset(tmp_path, pairs, verl_tokenizer, seed=3)
    labels = verl_tokenizer.encode("AB")
    replies = Counter()
    for item in range(len(dataset)):
        row, pair = dataset[item], pairs[dataset.items[item].index]
        order = option_order(pair.pair_id, 2, 0, 3)
        prompt = encode_prompt(PromptRenderer(PROMPT).messages(pair, order), verl_tokenizer, PROMPT)
        reply = [labels[order.index(0)], verl_tokenizer.convert_tokens_to_ids("<|im_end|>")]
        assert row["input_ids"].tolist() == prompt + reply
        assert row["loss_mask"].tolist() == [0] * len(prompt) + [1, 1]
        assert row["position_ids"].tolist() == list(range(len(prompt) + 2))
        replies[reply[0]] += 1
    assert len(replies) == 2, "the supporting context always stands in the same place"


def test_the_reply_names_the_supporting_one_of_three(tmp_path, verl_tokenizer):
    prompt = {"template": "short", "labels": ["A", "B", "C"]}
    pairs = [text_pair(number, confounders=2) for number in range(12)]
    dataset = open_dataset(tmp_path, pairs, verl_tokenizer, prompt=prompt)
    for item in range(12):
        pair = pairs[dataset.items[item].index]
        label = "ABC"[option_order(pair.pair_id, 3, 0, 1).index(0)]
        text = verl_tokenizer.decode(dataset[item]["input_ids"])
        assert text.endswith(f"{label}<|im_end|>")
        assert f"{label}: {pair.supporting.text}\n" in text


def test_prefill_and_labels_are_those_of_the_block(tmp_path, verl_tokenizer):
    prompt = {"template": "short", "labels": ["1", "2"], "prefill": "option "}
    row = open_dataset(tmp_path, [text_pair(n) for n in range(4)], verl_tokenizer, prompt=prompt)[0]
    text = verl_tokenizer.decode(row["input_ids"])
    assert text.endswith(("assistant\noption 1<|im_end|>", "assistant\noption 2<|im_end|>"))
    assert verl_tokenizer.decode(row["input_ids"][row["loss_mask"] == 1]) in ("1<|im_end|>", "2<|im_end|>")


def test_the_order_is_the_seeds_and_every_pass_sees_every_pair_once(tmp_path, verl_tokenizer):
    pairs = [text_pair(number) for number in range(12)]
    first, again, other = (
        pair_numbers(open_dataset(tmp_path, pairs, verl_tokenizer, seed=seed, epochs=2)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert sorted(first[:12]) == sorted(first[12:]) == list(range(12))
    assert first[:12] != first[12:]
    plain = pair_numbers(open_dataset(tmp_path, pairs, verl_tokenizer, epochs=2, shuffle=False))
    assert plain == [*range(12), *range(12)]


def test_a_pass_draws_new_option_orders(tmp_path, verl_tokenizer):
    dataset = open_dataset(tmp_path, [text_pair(n) for n in range(20)], verl_tokenizer, epochs=2, shuffle=False)
    rows = as_read(dataset)
    changed = [not torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(rows[:20], rows[20:], strict=True)]
    assert 0 < sum(changed) < 20


def test_both_orders_of_a_pair_stand_in_the_same_batch(tmp_path, verl_tokenizer):
    pairs = [text_pair(number) for number in range(6)]
    dataset = open_dataset(tmp_path, pairs, verl_tokenizer, pairs={"orders": "both"})
    rows, numbers = as_read(dataset), pair_numbers(dataset)
    assert len(rows) == 12
    for start in range(0, 12, 4):
        assert sorted(Counter(numbers[start : start + 4]).values()) == [2, 2]
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        assert {one["input_ids"][-2].item(), two["input_ids"][-2].item()} == set(verl_tokenizer.encode("AB"))


def test_the_order_holds_on_several_ranks():
    order = selection_order(24, batch_size=8, steps=3, seed=5)
    laid = before_sampler(order)
    # torchrun's trainer: every rank reads its own share, and a batch is one chunk of each.
    shares = [list(DistributedSampler(laid, num_replicas=4, rank=rank, shuffle=True)) for rank in range(4)]
    for batch in range(3):
        read = [laid[index] for share in shares for index in share[2 * batch : 2 * batch + 2]]
        assert sorted(read) == sorted(order[8 * batch : 8 * batch + 8])


@pytest.mark.parametrize(("run", "passes"), [({}, [8]), ({"total_training_steps": 6}, [10, 10, 4])])
def test_steps_override_epochs_and_an_incomplete_batch_is_left_out(tmp_path, verl_tokenizer, run, passes):
    items = open_dataset(tmp_path, [text_pair(number) for number in range(10)], verl_tokenizer, run=run).items
    assert sorted(Counter(item.epoch for item in items).items()) == list(enumerate(passes))


def test_held_out_pairs_are_asked_in_every_order_and_fill_whole_batches(tmp_path, verl_tokenizer):
    dataset = open_dataset(tmp_path, [text_pair(number) for number in range(3)], verl_tokenizer, held_out=True)
    questions = [(n, rotation) for n in range(3) for rotation in range(2)]
    assert [(item.index, item.rotation) for item in dataset.items] == [*questions, *questions[:2]]


def test_long_pairs_are_left_out_and_counted(tmp_path, verl_tokenizer, capsys):
    pairs = [*(text_pair(number) for number in range(4)), text_pair(9, length=200)]
    dataset = open_dataset(tmp_path, pairs, verl_tokenizer)
    assert set(pair_numbers(dataset)) == {0, 1, 2, 3}
    assert "left out: 1 pairs longer than data.max_prompt_length=" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("family", "token"),
    [("qwen2.5", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("gemma", "<end_of_turn>"), ("llama2", "</s>"),
     ("mistral", "</s>")],
)  # fmt: skip
def test_the_end_of_a_turn_is_the_chat_templates(family, token):
    tokenizer = FAMILIES[family]()
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer, PromptConfig())) == token


def test_no_end_of_a_turn_is_refused():
    tokenizer = FAMILIES["llama2"]()
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match=r"has no eos token.*Fix: set eos_token"):
        end_of_turn(tokenizer, PromptConfig())


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_images_are_encoded_as_verls_agent_loop_encodes_them(tmp_path, demo_tokenizer, family):
    from types import SimpleNamespace

    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.dataset.dataset_utils import SFTTensorCollator

    make_model(make_processor(demo_tokenizer, family), family, tmp_path / "model")
    tokenizer, processor = hf_tokenizer(str(tmp_path / "model")), hf_processor(str(tmp_path / "model"))
    pairs = [image_pair(1, [[(56, 84)], [(84, 56)]], noisy=True), image_pair(2, [[(56, 56)] * 2, [(84, 84)] * 2])]
    pairs += [text_pair(3), text_pair(4)]
    dataset = open_dataset(tmp_path, pairs, tokenizer, processor)
    for item in range(4):
        row, pair = dataset[item], pairs[dataset.items[item].index]
        order = option_order(pair.pair_id, 2, 0, 1)
        messages = PromptRenderer(PROMPT).messages(pair, order)
        assert row["input_ids"][:-2].tolist() == encode_prompt(messages, tokenizer, PROMPT, processor)
        inputs = row["multi_modal_inputs"]
        if pair.supporting.images:
            shown = 2 * len(pair.supporting.images)
            assert inputs["image_grid_thw"].shape == (shown, 3)
            assert len(inputs["pixel_values"]) == inputs["image_grid_thw"].prod(-1).sum()
        else:
            assert inputs == {}
        loops = {**inputs, "mm_token_type_ids": True}
        ids = row["input_ids"][None]
        expected = AgentLoopWorker._compute_position_ids(
            SimpleNamespace(processor=processor), ids, torch.ones_like(ids), loops
        )
        assert torch.equal(row["position_ids"], expected[0])
    batch = SFTTensorCollator("no_padding")([dataset[item] for item in range(4)])
    assert batch["position_ids"].is_nested
    assert len(batch["multi_modal_inputs"]) == 4


@pytest.mark.parametrize(
    ("numbers", "change", "said"),
    [
        (3, {}, r"needs 4 different pairs, and contextrl.pairs.train_files holds 3 .*Fix: give more pairs"),
        (4, {"pairs": {"train_files": []}}, r"contextrl.pairs.train_files is empty.*Fix: contextrl.pairs.train_files="),
        (4, {"pairs": {"orders": "both"}, "run": {"train_batch_size": 3}}, r"Fix: make it a multiple of 2"),
        (4, {"run": {"max_prompt_length": 5}}, r"all 4 pairs are longer than data.max_prompt_length=5"),
        (4, {"prompts": {}}, r"contextrl.prompts is .*no such key.*Fix: rename it to prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_sentence(tmp_path, verl_tokenizer, numbers, change, said):
    with pytest.raises(SystemExit, match=said):
        open_dataset(tmp_path, [text_pair(number) for number in range(numbers)], verl_tokenizer, **change)
