"""What contextrl_verl relies on in vLLM 0.28, for the CPU stack and for the held-out questions."""

from __future__ import annotations

import importlib.metadata
import inspect

import pytest

vllm = pytest.importorskip("vllm", reason="needs vLLM (make setup)")


def test_linear_layers_look_the_packing_function_up_when_they_load():
    """cpu/vllm_plugin.py replaces it in ``layers.utils``; an import at module level would keep the old one."""
    from vllm.model_executor.layers import linear, utils, vocab_parallel_embedding

    assert list(inspect.signature(utils.dispatch_cpu_unquantized_gemm).parameters) == ["layer", "remove_weight"]
    for module in (linear, vocab_parallel_embedding):
        assert "dispatch_cpu_unquantized_gemm(" in inspect.getsource(module)
        assert not hasattr(module, "dispatch_cpu_unquantized_gemm"), f"cpu/vllm_plugin.py must patch {module.__name__}"


def test_a_linear_layer_computes_with_what_the_plugin_sets():
    """cpu/vllm_plugin.py sets ``layer.cpu_linear``, called as (x, weight, bias)."""
    import torch
    from vllm.model_executor.layers import utils

    layer = torch.nn.Linear(4, 3)
    layer.cpu_linear = lambda x, weight, bias: torch.nn.functional.linear(x, weight, bias)
    x = torch.randn(2, 4)
    assert torch.equal(utils.cpu_unquantized_gemm(layer, x, layer.weight, layer.bias), layer(x))


def test_vllm_loads_general_plugins_by_entry_point():
    from vllm.plugins import DEFAULT_PLUGINS_GROUP, load_general_plugins

    assert callable(load_general_plugins)
    names = [point.name for point in importlib.metadata.entry_points(group=DEFAULT_PLUGINS_GROUP)]
    assert {"contextrl_cpu", "contextrl_images"} <= set(names), "pyproject.toml names the entry points"


def test_vllm_chooses_its_cpu_platform_by_the_version():
    from vllm.platforms import vllm_version_matches_substr

    assert vllm_version_matches_substr("cpu"), "cpu/shims.py: answer_vllm_version"


def test_environment_variables_of_the_cpu_stack_are_vllms():
    from vllm import envs

    from contextrl_verl.patches.cpu.environment import ENVIRONMENT

    names = [name for name in ENVIRONMENT if name.startswith("VLLM_")]
    assert names
    for name in names:
        assert name in envs.environment_variables, f"cpu/environment.py sets {name}"


def test_sampling_parameters_that_the_answer_loop_sets():
    params = vllm.SamplingParams(max_tokens=1, temperature=0, top_p=1.0, top_k=-1, repetition_penalty=1.0, logprobs=0)
    assert (params.max_tokens, params.temperature, params.logprobs) == (1, 0, 0), "agent_loop.py: PairAnswerLoop"
