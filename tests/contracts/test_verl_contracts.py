"""What contextrl_verl relies on in verl 0.9.1, for the engine.

Each test names the file of ours that has to follow when it fails after an upgrade of verl.
"""

from __future__ import annotations

import importlib.metadata
import re

import pytest
import torch
from look import parameters, source
from tensordict import TensorDict

from contextrl_verl.grpo.config import ContextRLFSDPEngineConfig
from contextrl_verl.grpo.engine import MODEL_TYPE, ContextRLEngine


def test_the_version_is_the_one_these_contracts_were_read_from():
    assert importlib.metadata.version("verl") == "0.9.1", "read these files again, then change pyproject and doctor.py"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("__init__", ["self", "model_config", "engine_config", "optimizer_config", "checkpoint_config"]),
        ("forward_backward_batch", ["self", "data", "loss_function", "forward_only"]),
        ("_build_module", ["self"]),
        ("_build_fsdp_module", ["self", "module"]),
        ("prepare_model_inputs", ["self", "micro_batch"]),
        ("prepare_model_outputs", ["self", "output", "output_args", "micro_batch", "logits_processor_func"]),
        ("get_data_parallel_size", ["self"]),
        ("get_data_parallel_group", ["self"]),
    ],
)
def test_methods_that_the_engine_overrides_or_calls(method, expected):
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    assert parameters(getattr(FSDPEngineWithLMHead, method)) == expected, "engine.py"
    if method in vars(ContextRLEngine):
        assert parameters(getattr(ContextRLEngine, method)) == expected


def test_the_forward_step_hands_the_loss_what_prepare_model_outputs_returned():
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine, FSDPEngineWithLMHead

    step = re.sub(r"\s+", " ", source(FSDPEngineWithLMHead.forward_step, "engine.py"))
    order = [
        step.find("model_output = self.prepare_model_outputs("),
        step.find("loss_function( model_output=model_output, data=micro_batch, dp_group="),
        step.find("detach_tree(model_output)"),
    ]
    assert -1 not in order, "engine.py reads rows in prepare_model_outputs and pops them in the loss"
    assert order == sorted(order)
    batch = source(FSDPEngine.forward_backward_batch, "engine.py")
    assert 'data["loss_mask"].sum()' in batch, "engine.py: the carrier's zero mask keeps it out of the token count"
    assert "torch.no_grad() if forward_only" in batch, "engine.py tells passes apart by torch.is_grad_enabled"


def test_what_the_engine_changes_in_the_inputs_is_what_the_outputs_are_made_of():
    from verl.utils.ulysses import gather_outputs_and_unpad
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    inputs, outputs = (
        source(getattr(FSDPEngineWithLMHead, name), "engine.py: _plan_reading")
        for name in ("prepare_model_inputs", "prepare_model_outputs")
    )
    for name in ("input_ids_rmpad_rolled", "temperature_rmpad", "pad_size"):
        assert f'output_args["{name}"] =' in inputs, f"engine.py: {name}"
        assert f'output_args["{name}"]' in outputs, f"engine.py: {name}"
    assert 'extra_args["shift_labels"] = output_args["input_ids_rmpad_rolled"].unsqueeze(0)' in inputs, "engine.py"
    assert "cu_seqlens = input_ids.offsets()" in outputs, "engine.py: rows are cut by the micro-batch's input_ids"
    assert parameters(gather_outputs_and_unpad)[:2] == ["x", "gather_dim"], "engine.py: _rows"


def test_verl_decides_by_tied_weights_whether_the_head_is_a_unit_of_its_own():
    from verl.utils import fsdp_utils

    text = source(fsdp_utils._select_fsdp2_wrap_targets, "fused_head.py")
    assert 'getattr(model.config, "tie_word_embeddings", False)' in text, "fused_head.py: head_in_root_unit"


def test_the_base_engine_knows_the_model_by_the_name_the_engine_sets():
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    assert '== "language_model"' in source(FSDPEngine._build_module, "engine.py"), "engine.py: ContextRLEngine.__init__"


def test_the_policy_loss_divides_by_what_the_engine_corrects():
    from verl.workers.utils.losses import ppo_loss

    assert parameters(ppo_loss) == ["config", "model_output", "data", "dp_group"]
    text = source(ppo_loss, "engine.py")
    for name in ("batch_num_tokens", "global_batch_size", "dp_size"):
        assert f'data["{name}"]' in text, f"engine.py: {name}"


def test_registry_gives_the_engine_for_both_strategies(monkeypatch):
    from verl.workers.engine import EngineRegistry

    assert parameters(EngineRegistry.register)[:3] == ["model_type", "backend", "device"]
    for strategy in ("fsdp", "fsdp2"):
        for device in ("cuda", "npu", "cpu"):
            monkeypatch.setenv("VERL_ENGINE_DEVICE", device)
            assert EngineRegistry.get_engine_cls(MODEL_TYPE, strategy) is ContextRLEngine


def test_the_worker_chooses_the_engine_by_the_model_type_of_the_yaml():
    from verl.workers import engine_workers

    text = source(engine_workers, "contextrl_base.yaml")
    assert 'model_type=actor_config.model_config.get("model_type"' in text, "contextrl_base.yaml: model.model_type"
    assert "EngineRegistry.new(" in text


def test_metrics_are_summed_or_averaged_over_micro_batches_and_ranks():
    from verl.utils.metric import AggregationType, Metric

    assert parameters(Metric.__init__) == ["self", "aggregation", "value"]
    for kind, together in ((AggregationType.SUM, 12.0), (AggregationType.MEAN, 3.0)):
        metric = Metric(kind, torch.tensor(1.0))
        metric.extend(Metric(kind, 5.0))
        assert metric.aggregate() == together / (2 if kind is AggregationType.SUM else 1)
    ranks = [Metric(AggregationType.SUM, 4.0), Metric(AggregationType.SUM, 8.0)]
    assert Metric.aggregate_dp(ranks) == 6.0, "engine.py scales its sums by the number of ranks, for this mean"


def test_values_that_travel_beside_tensors():
    from verl.utils import tensordict_utils as tu

    data = TensorDict({"x": torch.zeros(2)}, batch_size=2)
    tu.assign_non_tensor(data, global_batch_size=7)
    assert tu.get_non_tensor_data(data, "global_batch_size", None) == 7
    assert tu.get_non_tensor_data(data, "absent", None) is None
    tu.assign_non_tensor(data, global_batch_size=5)
    assert tu.get_non_tensor_data(data, "global_batch_size", None) == 5, "engine.py: takes pairs out of this number"


def test_engine_config_can_be_extended():
    from verl.workers.config import FSDPEngineConfig

    assert isinstance(FSDPEngineConfig._mutable_fields, set | frozenset)
    fields = FSDPEngineConfig.__dataclass_fields__
    assert {"use_fused_kernels", "ulysses_sequence_parallel_size", "strategy"} <= set(fields), "engine.py"
    assert hasattr(FSDPEngineConfig, "__post_init__")
    config = ContextRLFSDPEngineConfig(contextrl={"objective": "none"})
    config.contextrl = {"objective": "none", "seed": 3}
    assert config.settings.seed == 3
