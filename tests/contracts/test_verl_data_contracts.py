"""What contextrl_verl relies on in verl 0.9.1, for the data set and on the rollout side."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
import torch
from job_factory import compose_job
from look import parameters, source
from verl.experimental.agent_loop import agent_loop
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.dataset import rl_dataset

import contextrl_verl.grpo.register
from contextrl_verl.grpo.batch_column import ANSWER, CARRIER, COLUMN, ordinary_row
from contextrl_verl.grpo.dataset import MixedTaskDataset


def test_the_class_of_the_yaml_is_the_one_that_verl_builds():
    assert rl_dataset.get_dataset_class(compose_job().data) is MixedTaskDataset, "contextrl_base.yaml: data.custom_cls"


def test_the_data_set_is_built_with_these_names():
    from verl.trainer.ppo.utils import create_rl_dataset

    expected = ["self", "data_files", "tokenizer", "config", "processor", "max_samples"]
    assert parameters(rl_dataset.RLHFDataset.__init__) == expected, "dataset.py"
    assert parameters(MixedTaskDataset.__init__) == expected
    assert parameters(create_rl_dataset) == [
        "data_paths", "data_config", "tokenizer", "processor", "is_train", "max_samples",
    ]  # fmt: skip
    assert "is_train=is_train" not in source(create_rl_dataset, "dataset.py"), (
        "verl tells a data set which of the two it serves: dataset._is_train may go"
    )


def test_methods_that_the_data_set_overrides():
    base = rl_dataset.RLHFDataset
    assert parameters(base._read_files_and_tokenize) == ["self"], "dataset.py"
    assert parameters(base.__getitem__) == ["self", "item"], "dataset.py"
    assert "self._read_files_and_tokenize()" in source(base.__init__, "dataset.py")
    text = source(base._read_files_and_tokenize, "dataset.py")
    assert "self.dataframe" in text, "dataset.py counts and reads self.dataframe"
    names = source(base.__init__, "dataset.py")
    for name in ("prompt_key", "image_key", "video_key", "audio_key", "tokenizer", "processor", "config"):
        assert f"self.{name} =" in names, f"dataset.py: {name}"


def test_the_trainer_reads_the_data_set_in_order_and_keeps_its_state():
    from torch.utils.data import SequentialSampler
    from verl.trainer.ppo.utils import create_rl_sampler

    assert type(create_rl_sampler(compose_job().data, [1, 2])) is SequentialSampler, "batch_plan.py"
    text = source(PPOTrainer._init_dataloader, "batch_plan.py")
    assert "StatefulDataLoader(" in text
    assert "drop_last=True" in text
    assert "self.train_dataloader.state_dict()" in source(PPOTrainer._save_checkpoint, "dataset.py")
    assert "self.train_dataloader.load_state_dict(" in source(PPOTrainer._load_checkpoint, "dataset.py")


def test_rows_of_a_batch_are_stacked_by_column():
    row = {COLUMN: ordinary_row(2), "extra_info": {"index": 1}, "__rollout_n__": 4}
    batch = rl_dataset.collate_fn([row, row])
    assert torch.equal(batch[COLUMN], torch.stack([row[COLUMN]] * 2)), "batch_column.py"
    assert batch["__rollout_n__"].tolist() == [4, 4]
    # A column that some row lacks makes the columns differ in length: why a pair has every column.
    uneven = rl_dataset.collate_fn([row, {COLUMN: ordinary_row(2)}])
    assert [len(values) for values in uneven.values()] == [2, 1, 1]


def test_samples_per_row_are_read_from_the_row():
    text = source(agent_loop_tq, "dataset.py")
    assert re.search(r'n = prompt\.pop\(\s*"__rollout_n__"', text), "dataset.py: __rollout_n__"
    assert '"__rollout_n__"' in source(PPOTrainer._validate, "dataset.py leaves it out of validation rows")


def test_what_a_row_needs_to_reach_an_agent_loop():
    text = source(agent_loop_tq, "dataset.py")
    assert 'batch["index"]' in text, "dataset.py: the column index"
    assert 'if "agent_name" not in batch' in text, "dataset.py: the column agent_name"
    assert "field.update(kwargs)" in text, "batch_column.py: columns of the data set reach the engine"


@pytest.mark.parametrize("loop", [agent_loop.AgentLoopBase, contextrl_verl.grpo.register.agent_loop.PairCarrierLoop])
def test_agent_loops_are_built_and_run_with_these_names(loop):
    names = [
        "self", "trainer_config", "server_manager", "tokenizer", "processor", "dataset_cls", "data_config",
        "hf_model_type", "kwargs",
    ]  # fmt: skip
    assert parameters(agent_loop.AgentLoopBase.__init__) == names, "agent_loop.py"
    kinds = [p.kind for p in inspect.signature(loop.run).parameters.values()]
    assert parameters(loop.run)[:2] == ["self", "sampling_params"]
    assert kinds[-1] is inspect.Parameter.VAR_KEYWORD
    run = source(agent_loop.AgentLoopWorker._run_agent_loop, "agent_loop.py")
    assert "agent_loop.run(sampling_params, **kwargs)" in run
    assert "_agent_loop_registry[agent_name]" in run


def test_loops_are_registered_by_name():
    for name in (CARRIER, ANSWER, "single_turn_agent"):
        assert "_target_" in agent_loop._agent_loop_registry[name], "agent_loop.py"


def test_fields_of_an_output_are_exactly_these():
    """A new field must be filled by agent_loop.PairCarrierLoop too: verl drops fields that some rows lack."""
    assert set(agent_loop.AgentLoopOutput.model_fields) == {
        "prompt_ids", "response_ids", "response_mask", "response_logprobs", "routed_experts", "multi_modal_data",
        "reward_score", "num_turns", "metrics", "extra_fields", "mm_processor_kwargs", "mm_processor_output",
    }  # fmt: skip
    assert set(agent_loop.AgentLoopMetrics.model_fields) == {
        "generate_sequences", "tool_calls", "compute_score", "num_preempted",
    }  # fmt: skip
    output = agent_loop.AgentLoopOutput(prompt_ids=[1], response_ids=[2], response_mask=[0], metrics={})
    assert "rm_scores" not in output.as_dict(), "as_dict leaves out what was not set: set every field"


def test_a_reward_that_is_set_is_kept():
    assert "final_output.reward_score is None" in source(
        agent_loop.AgentLoopWorker._compute_score, "agent_loop.py: a carrier row is not scored"
    )


def test_the_rollout_server_is_asked_with_these_names():
    from verl.workers.rollout.llm_server import LLMServerClient
    from verl.workers.rollout.replica import TokenOutput

    assert {"request_id", "prompt_ids", "sampling_params", "image_data"} <= set(parameters(LLMServerClient.generate))
    assert {"token_ids", "log_probs", "num_preempted", "extra_fields"} <= set(TokenOutput.model_fields), "agent_loop.py"


def test_the_steps_of_a_row_must_be_numbers():
    text = source(PPOTrainer._compute_metrics, "agent_loop.py")
    assert 'tag["min_global_steps"] for tag in batch.tags], dtype=int' in text, "agent_loop.py: min_global_steps"
    with pytest.raises(TypeError):
        np.array([None], dtype=int)


def test_padding_is_a_clone_of_the_first_row_that_ends_in_eos():
    from verl.trainer.ppo import padding_utils

    text = source(padding_utils.upsample_batch_to_divisible_size, "batch_column.py")
    assert "source_idx = 0" in text, "carrier.pair_rows"
    assert parameters(padding_utils.construct_minimal_padding_template) == ["source_td", "source_tag", "eos_token_id"]


def test_fields_that_some_row_lacks_are_not_stored_for_the_others():
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    with pytest.raises(KeyError):
        list_of_dict_to_tensordict([{"a": torch.ones(1), COLUMN: torch.ones(1)}, {"a": torch.ones(1)}])
    stored = list_of_dict_to_tensordict([{"a": torch.ones(1)}, {"a": torch.ones(1), COLUMN: torch.ones(1)}])
    assert COLUMN not in stored.keys(), "dataset.py: ordinary rows have the column too"


def test_tokenizers_are_loaded_by_these_functions():
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.fs import copy_to_local

    for function in (hf_tokenizer, hf_processor):
        assert parameters(function)[0] == "name_or_path", "preflight.py"
    assert parameters(copy_to_local)[0] == "src", "preflight.py"
