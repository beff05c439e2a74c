"""The mixed-task data set, read through the loaders of verl's own trainer."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from job_factory import job_on, pairs_in, row_ids, verl_loaders
from omegaconf import OmegaConf
from pair_factory import text_pair
from verl.utils import tensordict_utils as tu

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.batch_column import ANSWER, CARRIER, COLUMN
from contextrl_verl.pairs.option_tokens import resolve_option_tokens
from contextrl_verl.pairs.prompting import PromptConfig

SIX = [text_pair(number) for number in range(6)]


@pytest.fixture
def batches(tmp_path, verl_tokenizer):
    """``batches(overrides, **files)``: row ids of every training batch of a job on six pairs."""

    def read(*overrides, **files):
        config = job_on(tmp_path, *overrides, **{"pairs": SIX, **files})
        return [row_ids(batch) for batch in verl_loaders(config, verl_tokenizer).train_dataloader]

    return read


@pytest.mark.parametrize("workers", [0, 2])
def test_every_batch_has_the_exact_number_of_pairs(batches, workers):
    read = batches("contextrl.epochs=3", f"data.dataloader_num_workers={workers}")
    assert [len(batch) for batch in read] == [5] * 12
    assert [len(pairs_in(batch)) for batch in read] == [2] * 12


@pytest.mark.parametrize("overrides", [["trainer.total_epochs=3"], ["trainer.total_epochs=3", "contextrl.epochs=3"]])
def test_verls_number_of_epochs_is_ours_and_one_pass_of_the_loader(tmp_path, verl_tokenizer, overrides):
    config = job_on(tmp_path, *overrides, pairs=SIX)
    trainer = verl_loaders(config, verl_tokenizer)
    assert len(list(trainer.train_dataloader)) == trainer.total_training_steps == trainer.steps_per_epoch == 12
    assert config.trainer.total_epochs == 1


def test_every_source_is_passed_through_once_before_it_repeats_in_a_new_order(batches):
    drawn = list(chain.from_iterable(batches("contextrl.epochs=3")))
    for source, size in ((pairs_in(drawn), 6), ([name for name in drawn if "@" not in name], 12)):
        passes = [source[at : at + size] for at in range(0, len(source), size)]
        assert len(passes) == len(drawn) * (2 if size == 6 else 3) // 5 // size
        assert all(len(set(one)) == size for one in passes)
        assert len({tuple(one) for one in passes}) == len(passes)


def test_orders_both_asks_each_pair_in_every_order_of_the_same_batch(batches):
    read = batches("contextrl.pairs.orders=both", "contextrl.epochs=2", batch=7, per_batch=4)
    drawn = []
    for batch in read:
        asked = [name.split("@") for name in batch if "@" in name]
        positions = {pair: sorted(at for p, at in asked if p == pair) for pair, _ in asked}
        assert list(positions.values()) == [["0", "1"]] * 2
        drawn += positions
    passes = [drawn[at : at + 6] for at in range(0, len(drawn), 6)]
    assert all(len(set(one)) == len(one) for one in passes)


def test_random_orders_show_the_supporting_context_in_both_positions(batches):
    shown = Counter(name[-1] for batch in batches("contextrl.epochs=9") for name in batch if "@" in name)
    assert min(shown["0"], shown["1"]) > 72 * 0.3


def test_the_seed_alone_decides_the_order(batches):
    first = batches("contextrl.seed=7")
    assert batches("contextrl.seed=7") == first
    other = batches("contextrl.seed=8")
    assert pairs_in(chain(*other)) != pairs_in(chain(*first))
    assert [name for batch in other for name in batch if "@" not in name] != [
        name for batch in first for name in batch if "@" not in name
    ]
    assert batches("contextrl.seed=7", "contextrl.shuffle=false") != first


@pytest.mark.parametrize("prefill", ["", "The correct option is"])
def test_pairs_over_the_limit_are_left_out_and_counted(tmp_path, verl_tokenizer, capsys, prefill):
    from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer

    pairs = [text_pair(number, length=number % 7 + 1) for number in range(30)]
    renderer = PromptRenderer(PromptConfig(prefill=prefill))

    def longest(pair):
        texts = [
            verl_tokenizer.apply_chat_template(
                renderer.messages(pair, order), tokenize=False, add_generation_prompt=True
            )
            for order in ([0, 1], [1, 0])
        ]
        return max(len(verl_tokenizer(text + prefill, add_special_tokens=False)["input_ids"]) for text in texts)

    lengths = {pair.pair_id: longest(pair) for pair in pairs}
    some = sorted(lengths.values())[12]
    for limit in (some, some - 1):
        kept = {name for name, length in lengths.items() if length <= limit}
        assert 0 < len(kept) < len(pairs)
        overrides = f"data.max_prompt_length={limit}", f"contextrl.prompt.prefill={prefill!r}"
        dataset = verl_loaders(job_on(tmp_path, *overrides, pairs=pairs), verl_tokenizer).train_dataset
        assert {pair.pair_id for pair in dataset.pairs} == kept
        assert (
            f"left out: {len(pairs) - len(kept)} pairs longer than data.max_prompt_length={limit}, "
            in capsys.readouterr().out
        )


@pytest.mark.parametrize(("objective", "agent", "n"), [("context_awareness", CARRIER, 1), ("selection_reward", "", 4)])
def test_how_pairs_are_rolled_out(tmp_path, verl_tokenizer, objective, agent, n):
    config = job_on(tmp_path, f"contextrl.objective={objective}", pairs=SIX)
    for batch in verl_loaders(config, verl_tokenizer).train_dataloader:
        for name, loop, count in zip(row_ids(batch), batch["agent_name"], batch["__rollout_n__"], strict=True):
            assert (loop, count) == ((agent or "single_turn_agent", n) if "@" in name else ("single_turn_agent", 4))


def test_pairs_as_ordinary_questions_show_one_context_and_no_answer(tmp_path, verl_tokenizer):
    config = job_on(tmp_path, "contextrl.objective=question_answering", pairs=SIX, held_out=SIX[:2])
    loaders = verl_loaders(config, verl_tokenizer)
    known = {pair.pair_id: pair for pair in SIX}
    seen = 0
    for batch in loaders.train_dataloader:
        assert set(batch["agent_name"]) == {"single_turn_agent"}
        assert set(batch["__rollout_n__"]) == {4}
        assert batch[COLUMN].tolist() == [[0, 0, -1, -1]] * 5
        for at, extra in enumerate(batch["extra_info"]):
            if "pair_id" not in extra:
                continue
            pair, seen = known[extra["pair_id"]], seen + 1
            (message,) = batch["raw_prompt"][at]
            assert pair.query in message["content"]
            assert pair.supporting.text in message["content"]
            assert all(other.text not in message["content"] for other in pair.confounders)
            assert batch["reward_model"][at]["ground_truth"] == pair.answer
            assert batch["data_source"][at] == f"contextrl/question_answering/{pair.domain}"
    assert seen == 8
    # Held-out pairs are asked as in every arm.
    (asked,) = loaders.val_dataloader
    assert len(pairs_in(row_ids(asked))) == 4
    assert set(asked["agent_name"]) == {"single_turn_agent", ANSWER}


def test_questions_have_no_orders(tmp_path, verl_tokenizer):
    config = job_on(
        tmp_path, "contextrl.objective=question_answering", "contextrl.pairs.orders=both", pairs=SIX
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"orders is 'both' and contextrl.objective is 'question_answering'"):
        verl_loaders(config, verl_tokenizer)


def test_without_an_objective_only_plain_rows_are_trained_and_pairs_are_still_asked(tmp_path, verl_tokenizer):
    config = job_on(tmp_path, "contextrl.objective=none", pairs=SIX, held_out=SIX[:2])
    loaders = verl_loaders(config, verl_tokenizer)
    for batch in loaders.train_dataloader:
        assert not pairs_in(row_ids(batch))
        assert batch[COLUMN].tolist() == [[0, 0, -1, -1]] * 5
        assert set(batch["agent_name"]) == {"single_turn_agent"}
    (asked,) = loaders.val_dataloader
    assert len(pairs_in(row_ids(asked))) == 4


@pytest.mark.parametrize("objective", ["context_awareness", "selection_reward"])
@pytest.mark.parametrize(("val_by", "agent"), [("choice", ANSWER), ("reply", "single_turn_agent")])
def test_validation_asks_every_held_out_pair_in_every_order(tmp_path, verl_tokenizer, objective, val_by, agent):
    held_out = [text_pair(number, confounders=1 + number % 2) for number in range(20, 25)]
    overrides = (
        f"contextrl.objective={objective}", f"contextrl.pairs.val_by={val_by}", "contextrl.prompt.labels=[A,B,'yes']",
        "contextrl.prompt.prefill='The correct option is'",
    )  # fmt: skip
    config = job_on(tmp_path, *overrides, pairs=SIX, held_out=held_out)
    (batch,) = verl_loaders(config, verl_tokenizer).val_dataloader
    assert "__rollout_n__" not in batch
    expected = {f"{p.pair_id}@{at}" for p in held_out for at in range(len(p.contexts))} | {"rl100", "rl101", "rl102"}
    assert sorted(row_ids(batch)) == sorted(expected)
    for name, loop in zip(row_ids(batch), batch["agent_name"], strict=True):
        assert loop == (agent if "@" in name else "single_turn_agent")
    # A reply that the model writes does not begin with the prefill, so its labels are other tokens.
    prefill = "The correct option is" if val_by == "choice" else ""
    expected_ids = resolve_option_tokens(verl_tokenizer, PromptConfig(labels=("A", "B", "yes"), prefill=prefill))
    asked = [row for name, row in zip(row_ids(batch), batch[COLUMN].tolist(), strict=True) if "@" in name]
    assert all(row[2 : 2 + row[0]] == list(expected_ids)[: row[0]] for row in asked)


@pytest.mark.parametrize("prefill", ["", "The correct option is"])
def test_column_and_prompt_of_a_pair_agree(tmp_path, verl_tokenizer, prefill):
    pairs = [text_pair(number, confounders=1 + number % 2) for number in range(6)]
    overrides = f"contextrl.prompt.prefill={prefill!r}", "contextrl.prompt.labels=[A,B,'yes']", "contextrl.epochs=3"
    config = job_on(tmp_path, *overrides, pairs=pairs)
    seen, labels = 0, ["A", "B", "yes"]
    for batch in verl_loaders(config, verl_tokenizer).train_dataloader:
        for at, name in enumerate(row_ids(batch)):
            if "@" not in name:
                assert batch[COLUMN][at].tolist() == [0, 0, -1, -1, -1]
                continue
            pair, seen = next(p for p in pairs if p.pair_id == name.split("@")[0]), seen + 1
            options, supporting, *ids = batch[COLUMN][at].tolist()
            label = batch["reward_model"][at]["ground_truth"]
            assert label == labels[supporting]
            (message,) = batch["raw_prompt"][at]
            shown = dict(re.findall(r"===== Context (\w+) =====\n(.*?)\n+(?======)", message["content"], re.S))
            assert sorted(shown) == sorted(labels[:options])
            assert shown[label] == pair.supporting.text
            assert set(shown.values()) == {context.text for context in pair.contexts}
            text = verl_tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True) + prefill
            for option, token in zip(labels, ids, strict=True):
                answered = verl_tokenizer(text + (" " if prefill else "") + option, add_special_tokens=False)[
                    "input_ids"
                ]
                assert token == (answered[-1] if option in shown else -1)
    assert seen == 24


@pytest.mark.parametrize(
    "extra",
    [{}, {"difficulty": 3, "agent_name": "my_loop"}, {"images": None, "extra_info": None}, {"ability": ...}],
    ids=["same", "more", "empty", "fewer"],
)
def test_pairs_have_the_columns_of_ordinary_rows(tmp_path, verl_tokenizer, extra):
    loaders = verl_loaders(job_on(tmp_path, pairs=SIX, held_out=SIX[:1], **extra), verl_tokenizer)
    for dataset in (loaders.train_dataset, loaders.val_dataset):
        assert len({tuple(sorted(dataset[item])) for item in range(len(dataset))}) == 1
    batch = next(iter(loaders.train_dataloader))
    assert {name: len(values) for name, values in batch.items()} == dict.fromkeys(batch, 5)
    assert set(extra) - {"images", "ability"} <= set(batch)
    assert ("ability" in batch) == ("ability" not in extra)
    batch["uid"] = np.array(list("abcde"), dtype=object)
    table = tu.get_tensordict(batch)
    assert table.batch_size == torch.Size([5])
    assert table[COLUMN].dtype == torch.int64
    ordinary = "my_loop" if "agent_name" in extra else "single_turn_agent"
    loops = tu.get(table, "agent_name")
    assert sorted(loops) == sorted([ordinary] * 3 + [CARRIER] * 2)


def test_the_same_file_for_both_uses_is_refused(tmp_path, verl_tokenizer):
    config = job_on(tmp_path, pairs=SIX)
    config.data.val_files = config.data.train_files
    with pytest.raises(ConfigError, match="are the same list"):
        verl_loaders(config, verl_tokenizer)
    OmegaConf.update(config, "data.contextrl.pairs.per_batch", 0)
    config.data.val_files = ["other"]
    with pytest.raises(ConfigError, match="would train without pairs"):
        verl_loaders(config, verl_tokenizer)
