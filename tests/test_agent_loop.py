"""The carrier loop and the answer loop on rows of the real data set, without Ray."""

from __future__ import annotations

import pytest
import torch
from job_factory import job_on, row_ids, verl_loaders
from loop_factory import OneAnswer, run_loop
from pair_factory import text_pair
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.utils.dataset.rl_dataset import collate_fn

from contextrl_verl.grpo.batch_column import ANSWER, CARRIER
from contextrl_verl.pairs.prompting import PromptConfig, encode_prompt

SIX = [text_pair(number) for number in range(6)]
PREFILL = "The correct option is"


@pytest.fixture
def job(tmp_path, verl_tokenizer):
    """(config, training rows, validation rows)."""
    config = job_on(tmp_path, f"contextrl.prompt.prefill={PREFILL!r}", pairs=SIX, held_out=SIX[:1])
    loaders = verl_loaders(config, verl_tokenizer)
    return config, *([data[at] for at in range(len(data))] for data in (loaders.train_dataset, loaders.val_dataset))


def first(rows, agent):
    return next(row for row in rows if row["agent_name"] == agent)


def test_the_carrier_row_is_the_prompt_the_supporting_option_and_mask_zero(job, verl_tokenizer):
    config, rows, _ = job
    for row in [row for row in rows if row["agent_name"] == CARRIER][:4]:
        output = run_loop(config, row, verl_tokenizer)
        assert output.prompt_ids == encode_prompt(row["raw_prompt"], verl_tokenizer, PromptConfig(prefill=PREFILL))
        text = verl_tokenizer.apply_chat_template(row["raw_prompt"], tokenize=False, add_generation_prompt=True)
        assert verl_tokenizer.decode(output.prompt_ids) == text + PREFILL
        assert verl_tokenizer.decode(output.response_ids) == " " + row["reward_model"]["ground_truth"]
        assert len(output.response_ids) == 1
        assert output.response_mask == [0]
        assert output.reward_score == 0.0


def test_every_field_of_an_ordinary_row_is_filled(job, verl_tokenizer):
    """TransferQueue drops a field that some row of a batch lacks, and refuses to join different sets of fields."""
    config, rows, _ = job
    server = OneAnswer([11, 12])
    ordinary = run_loop(config, first(rows, "single_turn_agent"), verl_tokenizer, server=server)
    # verl's reward worker sets these two on an ordinary row.
    ordinary.reward_score = 1.0
    ordinary.extra_fields["reward_extra_info"] = {"acc": 1.0}
    carrier = run_loop(config, first(rows, CARRIER), verl_tokenizer)
    assert carrier.model_fields_set == set(AgentLoopOutput.model_fields)
    assert set(carrier.as_dict()) == set(ordinary.as_dict())
    assert {name: type(value) for name, value in carrier.as_dict().items()} == {
        name: type(value) for name, value in ordinary.as_dict().items()
    }
    assert set(ordinary.extra_fields) - set(carrier.extra_fields) == {"global_steps"}
    assert carrier.extra_fields["min_global_steps"] == carrier.extra_fields["max_global_steps"] == 4


def test_log_probs_are_returned_exactly_when_asked_for(job, verl_tokenizer):
    config, rows, _ = job
    for wanted in (True, False):
        ordinary = run_loop(
            config, first(rows, "single_turn_agent"), verl_tokenizer, server=OneAnswer([11]), logprobs=wanted
        )
        carrier = run_loop(config, first(rows, CARRIER), verl_tokenizer, logprobs=wanted)
        assert carrier.response_logprobs == ([0.0] if wanted else None)
        assert len(ordinary.response_logprobs) == 1


def test_held_out_pairs_are_asked_for_one_token_after_the_same_prompt(job, verl_tokenizer):
    config, _, rows = job
    server = OneAnswer([21, 22])
    given = {"temperature": 0, "max_tokens": 99}
    output = run_loop(config, first(rows, ANSWER), verl_tokenizer, server=server, **given)
    (asked,) = server.asked
    expected = encode_prompt(first(rows, ANSWER)["raw_prompt"], verl_tokenizer, PromptConfig(prefill=PREFILL))
    assert asked["prompt_ids"] == output.prompt_ids == expected
    options = [verl_tokenizer.encode(f" {label}", add_special_tokens=False)[-1] for label in "AB"]
    only = {"max_tokens": 1, "allowed_token_ids": options}
    assert asked["sampling_params"] == {"logprobs": True, "temperature": 0, **only}
    assert output.response_ids == [21]
    assert output.response_mask == [1]
    assert output.reward_score is None, "verl's reward worker scores only what has no score"
    ordinary = run_loop(config, first(rows, "single_turn_agent"), verl_tokenizer, server=server)
    assert set(output.as_dict()) == set(ordinary.as_dict())


def test_sglang_is_asked_in_its_own_words(job, verl_tokenizer):
    config, _, rows = job
    config.actor_rollout_ref.rollout.name = "sglang"
    run_loop(config, first(rows, ANSWER), verl_tokenizer, server=(server := OneAnswer([21])))
    bias = server.asked[0]["sampling_params"]["logit_bias"]
    options = [verl_tokenizer.encode(f" {label}", add_special_tokens=False)[-1] for label in "AB"]
    # No logit reaches it, and in fp32 a difference of 1e-4 between two labels survives it.
    assert bias == {str(option): 1000.0 for option in options}
    assert torch.tensor(1000.0) + 20.0001 > torch.tensor(1000.0) + 20.0
    assert "allowed_token_ids" not in server.asked[0]["sampling_params"]


def test_the_shared_sampling_parameters_are_left_alone(job, verl_tokenizer):
    config, _, rows = job
    import asyncio

    from verl.experimental.agent_loop.agent_loop import DictConfigWrap

    from contextrl_verl.grpo.agent_loop import PairAnswerLoop

    shared = {"max_tokens": 99}

    async def run():
        wrap = DictConfigWrap(config=config), OneAnswer([1]), verl_tokenizer, None, None, DictConfigWrap(config.data)
        await PairAnswerLoop(*wrap).run(shared, **first(rows, ANSWER))

    asyncio.run(run())
    assert shared == {"max_tokens": 99}


@pytest.mark.parametrize("agent", [CARRIER, ANSWER])
def test_an_overlong_prompt_is_an_error_and_never_cut(job, verl_tokenizer, agent):
    config, rows, held_out = job
    config.actor_rollout_ref.rollout.prompt_length = 20
    with pytest.raises(ValueError, match=r"over rollout\.prompt_length=20"):
        run_loop(config, first([*rows, *held_out], agent), verl_tokenizer, server=OneAnswer([1]))


def test_a_row_that_went_through_verls_batch_gives_the_same_output(job, verl_tokenizer):
    from verl.utils import tensordict_utils as tu

    config, rows, _ = job
    batch = tu.get_tensordict(collate_fn(rows[:5]))
    at = next(at for at, row in enumerate(rows[:5]) if row["agent_name"] == CARRIER)
    travelled = {}
    for name in batch.keys():
        value = batch[name]
        travelled[name] = value[at] if hasattr(value, "dtype") else tu.get(batch, name)[at]
    assert row_ids({"extra_info": [travelled["extra_info"]]}) == row_ids({"extra_info": [rows[at]["extra_info"]]})
    assert run_loop(config, travelled, verl_tokenizer) == run_loop(config, rows[at], verl_tokenizer)


def test_with_averaged_margins_a_row_is_the_pair_in_all_rotations(tmp_path, verl_tokenizer):
    three = [text_pair(number, confounders=2) for number in range(4)]
    keys = ("contextrl.loss.margin=averaged", "contextrl.pairs.orders=both", "contextrl.prompt.labels=[A,B,C]")
    config = job_on(tmp_path, *keys, pairs=three)
    data = verl_loaders(config, verl_tokenizer).train_dataset
    rows = [row for row in (data[at] for at in range(len(data))) if row["agent_name"] == CARRIER]
    assert len({row["extra_info"]["pair_id"] for row in rows[:2]}) == 2  # a pair is one item
    for row in rows[:4]:
        output = run_loop(config, row, verl_tokenizer)
        ids, parts = output.prompt_ids + output.response_ids, output.extra_fields["contextrl_parts"]
        assert output.response_mask == [0]
        assert sum(parts) == len(ids)
        asked = [row["raw_prompt"], *row["extra_info"]["contextrl_other_orders"]]
        assert len(asked) == len(parts) == 3
        right, places = f"value {row['extra_info']['pair_id'][1:]}\n", []
        for messages, length in zip(asked, parts, strict=True):
            part, ids = ids[:length], ids[length:]
            assert part[:-1] == encode_prompt(messages, verl_tokenizer, PromptConfig())
            text = messages[-1]["content"]
            # The label behind each prompt is that of the context which holds the pair's own number.
            places.append(sum(text.index(right) > text.index(f"Context {label}") for label in "ABC") - 1)
            assert verl_tokenizer.decode(part[-1:]).strip() == "ABC"[places[-1]]
        assert sorted(places) == [0, 1, 2]
        assert row["reward_model"]["ground_truth"] == "ABC"[places[-1]]


def test_held_out_pairs_are_asked_in_one_order_a_row_whatever_the_margin(tmp_path, verl_tokenizer):
    config = job_on(
        tmp_path, "contextrl.loss.margin=averaged", "contextrl.pairs.orders=both", pairs=SIX, held_out=SIX[:2]
    )
    data = verl_loaders(config, verl_tokenizer).val_dataset
    rows = [row for row in (data[at] for at in range(len(data))) if row["agent_name"] == ANSWER]
    assert len(rows) == 4
    assert all("contextrl_other_orders" not in row["extra_info"] for row in rows)
