"""The "cpu" platform of verl. Importing this module registers it; only ``VERL_PLATFORM=cpu`` ever selects it."""

import os
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _zero(*args: Any, **kwargs: Any) -> int:
    return 0


def _mem_get_info(*args: Any) -> tuple[int, int]:
    """Free and total bytes of main memory, in the order of ``torch.cuda.mem_get_info``."""
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")


class _CpuDeviceModule(ModuleType):
    """``torch.cpu`` plus the memory and random-state functions that verl calls on ``torch.cuda``.

    Anything else is looked up in ``torch.cpu``, so that a function verl starts to use and a CPU lacks is an
    AttributeError with its name rather than a silent stub.
    """

    def __init__(self) -> None:
        super().__init__("contextrl_cpu_device", "torch.cpu with what verl expects of a device module")
        # False as for "no device memory to manage": verl then skips cache clearing and memory statistics.
        self.is_available = lambda: False
        self.get_device_name = lambda *args: "CPU"
        self.mem_get_info = _mem_get_info
        self.manual_seed = self.manual_seed_all = torch.manual_seed
        self.get_rng_state = lambda *args: torch.get_rng_state()
        self.set_rng_state = lambda state, *args: torch.set_rng_state(state)
        for name in ("empty_cache", "ipc_collect", "set_device", "synchronize"):
            setattr(self, name, _nothing)
        for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
            setattr(self, name, _zero)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


_device_module = _CpuDeviceModule()


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """One CPU device per process, gloo between processes, logical GPUs for Ray's scheduler."""

    device_name = vendor_name = "cpu"
    device_module = _device_module
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    set_device = synchronize = set_allocator_settings = empty_cache = staticmethod(_nothing)
    profiler_start = profiler_stop = cudart = staticmethod(_nothing)
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    get_device_capability = staticmethod(lambda device_index=0: (None, None))
    communication_backend_name = staticmethod(lambda: "gloo")
    ray_noset_envvars = staticmethod(list)
    # Never picked by verl's detection: a GPU machine whose driver is broken must not train on its CPU.
    is_platform_available = staticmethod(lambda use_smi_check=False: False)
    # A name of our own, so that verl never rewrites CUDA_VISIBLE_DEVICES.
    visible_devices_envvar = staticmethod(lambda: "VERL_CPU_VISIBLE_DEVICES")
    # Ray's GPUs, counted but not there: verl places workers by accelerator and looks up their ids by this name.
    ray_resource_name = staticmethod(lambda: "GPU")
    # New weights reach vLLM through POSIX shared memory.
    is_ipc_supported = staticmethod(lambda: False)

    def current_device(self) -> torch.device:
        """A device, not an index: verl passes this to ``Tensor.to``, where an integer means CUDA.

        Two callers format it as ``cpu:{index}`` and would fail: loading FSDP1 (use FSDP2) and the weight transfer
        with IPC (not offered here).
        """
        return torch.device("cpu")

    @contextmanager
    def nvtx_range(self, msg: str):
        yield
