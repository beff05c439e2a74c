"""Meets every blocker of a CPU run once and prints, as JSON, how each went. Run by test_shims.py in two subprocesses:

``probe.py shimmed``: as in a real run, where the entry points of verl and vLLM have applied the shims.
``probe.py bare``: with the platform alone.
"""

import asyncio
import gc
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from multiprocessing import shared_memory
from pathlib import Path

import torch
import verl

TRANSFER = "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"


def probe_group() -> dict:
    from verl.utils.distributed import initialize_global_process_group_ray

    try:
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("cpu:gloo,cpu:mpi", store=store, rank=0, world_size=1)
        other = "accepted"
    except ValueError as error:
        other = str(error)
    initialize_global_process_group_ray()
    return {"backend": torch.distributed.get_backend(), "other_duplicate": other}


def probe_version() -> dict:
    package = importlib.import_module("verl.third_party.vllm")
    version = importlib.metadata.version("vllm")
    try:
        importlib.metadata.version("no-such-distribution")
        unknown = "answered"
    except importlib.metadata.PackageNotFoundError:
        unknown = "PackageNotFoundError"
    return {"version": version, "verl": package.vllm_version, "unknown": unknown}


def transfer_module(shimmed: bool):
    if shimmed:
        return importlib.import_module(TRANSFER)
    # Without the version shim its package cannot be imported, so the file is loaded on its own.
    path = Path(verl.__file__).parent.joinpath(*TRANSFER.split(".")[1:]).with_suffix(".py")
    spec = importlib.util.spec_from_file_location("bare_transfer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def probe_transfer(shimmed: bool) -> dict:
    module = transfer_module(shimmed)
    handle = f"ipc://{tempfile.mkdtemp()}/weights.sock"
    sender = module.BucketedWeightSender(handle, bucket_size_mb=1, use_shm=True)
    weights = [("weight", torch.arange(12, dtype=torch.float32).view(3, 4))]
    thread = threading.Thread(target=lambda: asyncio.run(sender.async_send_weights(weights)), daemon=True)
    thread.start()
    receiver = module.BucketedWeightReceiver(handle, device=torch.device("cpu"), use_shm=True)
    kept = []
    receiver.receive_weights(on_bucket_received=lambda bucket, is_last: kept.extend(bucket))
    thread.join(timeout=20)
    total = kept[0][1].sum().item()
    kept.clear()
    gc.collect()
    return {
        "sum": total,
        "sender_finished": not thread.is_alive(),
        "mappings_left": Path("/proc/self/maps").read_text().count("verl_weights"),
        "descriptors_left": sum(
            "verl_weights" in os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()
        ),
        "elsewhere_untouched": shared_memory.SharedMemory.close.__module__ == "multiprocessing.shared_memory",
    }


def probe_offload() -> dict:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
    from verl.utils.fsdp_utils import fsdp2_load_full_state_dict
    from verl.workers.engine.fsdp import transformer_impl

    asked = "CPUOffloadPolicy(pin_memory=True)" in inspect.getsource(transformer_impl)
    policy = transformer_impl.CPUOffloadPolicy(pin_memory=True)
    mesh = init_device_mesh("cpu", (1,), mesh_dim_names=("fsdp",))
    model = torch.nn.Linear(4, 4)
    full_state, inputs = {k: v.clone() for k, v in model.state_dict().items()}, torch.randn(2, 4)
    expected = torch.nn.functional.linear(inputs, full_state["weight"], full_state["bias"])
    report = {"asked": asked, "elsewhere_pinned": CPUOffloadPolicy().pin_memory}
    try:
        fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(), offload_policy=policy)
        fsdp2_load_full_state_dict(model, full_state, mesh, policy)
        report["difference"] = (model(inputs) - expected).abs().max().item()
    except Exception as error:
        report["error"] = f"{type(error).__name__}: {error}"
    return report


def probe_linear() -> dict:
    from vllm.model_executor.layers import utils
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    layer, inputs = torch.nn.Linear(64, 64), torch.randn(3, 64)
    report = {}
    for kind, remove in (("linear", True), ("embedding", False)):
        layer = torch.nn.Linear(64, 64)
        utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=remove)
        report[f"{kind}_elements"] = layer.weight.numel()
        if layer.weight.numel():
            with torch.no_grad():
                layer.weight.fill_(0.5)
                output = utils.cpu_unquantized_gemm(layer, inputs, layer.weight, layer.bias)
                expected = torch.nn.functional.linear(inputs, layer.weight, layer.bias)
            report[f"{kind}_difference"] = (output - expected).abs().max().item()
    return report


def probe_pixels() -> dict:
    """Mean and deviation of images after vLLM's dummy loader, as verl starts vLLM."""
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader
    from vllm.model_executor.models.vision import FusedInputNorm
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    model = torch.nn.Module()
    model.input_norm = FusedInputNorm([0.5, 0.4, 0.3], [0.2, 0.2, 0.2], 1 / 255)
    model.linear = torch.nn.Linear(2, 2)
    before = {name: buffer.clone() for name, buffer in model.input_norm.named_buffers()}
    DummyModelLoader(LoadConfig(load_format="dummy")).load_weights(model, None)
    after = dict(model.input_norm.named_buffers())
    return {
        "names": sorted(before),
        "moved": max((after[name] - before[name]).abs().max().item() for name in before),
        "linear": model.linear.weight.abs().max().item(),
    }


def main(mode: str) -> None:
    shimmed = mode == "shimmed"
    if not shimmed:
        import contextrl_verl.patches.cpu.platform  # noqa: F401
    probes = {
        "version": probe_version,
        "group": probe_group,
        "transfer": lambda: probe_transfer(shimmed),
        "offload": probe_offload,
        "linear": probe_linear,
        "pixels": probe_pixels,
    }
    outcomes = {}
    for name, probe in probes.items():
        start = time.time()
        try:
            outcomes[name] = probe()
        except Exception as error:
            outcomes[name] = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        outcomes[name]["seconds"] = round(time.time() - start, 1)
        if name == "group" and not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                "gloo", rank=0, world_size=1, init_method=os.environ["DIST_INIT_METHOD"]
            )
    print("\n" + json.dumps(outcomes), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
