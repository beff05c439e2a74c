"""The platform class on its own. verl is imported, but its choice of a platform is left alone."""

import pytest

pytest.importorskip("verl")

import torch
from verl.plugin.platform import PlatformRegistry

from contextrl_verl.patches.cpu.platform import PlatformCPU


@pytest.fixture
def platform():
    return PlatformCPU()


def test_registered_complete_and_never_picked_by_itself(platform):
    assert PlatformRegistry.get("cpu") is PlatformCPU
    assert platform.is_available()
    assert not platform.is_platform_available()
    assert not platform.is_platform_available(use_smi_check=True)


def test_the_current_device_serves_every_use_that_fsdp2_makes_of_it(platform):
    device = platform.current_device()
    assert torch.ones(1).to(device).device.type == "cpu"
    assert torch.device(device) == torch.device("cpu")
    assert torch.nn.Linear(1, 1).to(device=device, non_blocking=True).weight.device.type == "cpu"


def test_ray_sees_logical_gpus_and_weights_travel_without_ipc(platform):
    assert platform.ray_resource_name() == "GPU"
    assert platform.ray_resource_options(0.5) == {"num_gpus": 0.5}
    assert not platform.is_ipc_supported()
    assert platform.visible_devices_envvar() != "CUDA_VISIBLE_DEVICES"


def test_device_module_answers_what_verl_asks(platform):
    module = platform.device_module
    for name in ("empty_cache", "ipc_collect", "synchronize"):
        assert getattr(module, name)() is None
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        assert getattr(module, name)() == 0
    free, total = module.mem_get_info()
    assert 0 < free <= total
    assert not module.is_available()
    assert module.Stream is torch.cpu.Stream
    with pytest.raises(AttributeError, match="no_such_function"):
        _ = module.no_such_function


def test_still_needed_torch_cpu_lacks_the_memory_functions():
    missing = [name for name in ("memory_allocated", "mem_get_info", "empty_cache") if not hasattr(torch.cpu, name)]
    assert missing, "torch.cpu has them now: the device module can be torch.cpu itself"


def test_still_needed_verl_has_no_cpu_platform(run_python):
    code = "from verl.utils.device import get_device_name; get_device_name()"
    result = run_python(code, check=False, VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="none")
    assert result.returncode != 0
    assert "Unknown platform 'cpu'" in result.stderr


def test_random_state_can_be_saved_and_restored(platform):
    state = platform.device_module.get_rng_state()
    try:
        platform.manual_seed(3)
        saved = platform.device_module.get_rng_state()
        first = torch.rand(2)
        platform.device_module.set_rng_state(saved)
        assert torch.equal(first, torch.rand(2))
    finally:
        torch.set_rng_state(state)


def test_profiler_ranges_do_nothing(platform):
    with platform.nvtx_range("range"):
        platform.profiler_start()
        platform.profiler_stop()
