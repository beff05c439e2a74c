"""The verl entry point: free of charge off the CPU, and never silent when switching on the CPU fails."""

HEAVY = ("torch", "transformers", "ray", "verl", "vllm", "numpy", "pandas", "pydantic")


def test_importing_the_entry_points_pulls_in_nothing(run_python):
    code = """
import sys
before = set(sys.modules)
import contextrl_verl.patches.cpu.verl_plugin
import contextrl_verl.patches.cpu.vllm_plugin
print(*sorted(set(sys.modules) - before))
"""
    added = run_python(code).stdout.split()
    assert "contextrl_verl.patches.cpu.verl_plugin" in added
    assert not {name.split(".")[0] for name in added} & set(HEAVY)
    assert "contextrl_verl.patches.cpu.shims" not in added
    assert "contextrl_verl.patches.cpu.platform" not in added


def test_the_installed_entry_point_brings_the_cpu_platform(run_python):
    code = """
import verl
from verl.utils.device import get_device_id, get_device_name, get_nccl_backend
print("ANSWER", get_device_name(), get_device_id(), get_nccl_backend())
"""
    assert "ANSWER cpu cpu gloo" in run_python(code, VERL_PLATFORM="cpu").stdout


def test_without_the_variable_nothing_is_registered_or_patched(run_python):
    code = """
import importlib.metadata
import sys
import torch.distributed
import verl
from verl.plugin.platform import PlatformRegistry
assert "contextrl_verl.patches.cpu.verl_plugin" in sys.modules, "the entry point is not installed"
assert PlatformRegistry.get("cpu") is None
assert "contextrl_verl.patches.cpu.shims" not in sys.modules
patched = [torch.distributed.init_process_group, importlib.metadata.version]
assert not any(hasattr(function, "_contextrl_replacement") for function in patched)
"""
    run_python(code)


def test_a_failure_is_reported_although_verl_swallows_it(run_python):
    code = """
import sys
sys.modules["contextrl_verl.patches.cpu.shims"] = None
import verl
from verl.plugin.platform import PlatformRegistry
print("ANSWER", PlatformRegistry.get("cpu"))
"""
    result = run_python(code, VERL_PLATFORM="cpu")
    assert "ANSWER None" in result.stdout, "verl must stop at the missing platform, not run half adapted"
    assert "contextrl-verl: VERL_PLATFORM=cpu is set, but the CPU platform could not be switched on" in result.stderr
    assert "contextrl_verl.patches.cpu.shims" in result.stderr
