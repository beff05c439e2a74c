"""As joint_gradient.py, with verl's fused kernels and with what else users of long rows have on.

Arguments: folder of the models, and "all" for every case; without it half of those that have a twin. The last line is
verl's own engine on ordinary rows with an untied head.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
import torch.distributed as dist
from tiny_engine import (
    COEF,
    VOCABULARY,
    Setup,
    actor_config,
    compare,
    difference,
    gradients,
    make_engine,
    make_rows,
    plain_name,
    put_back_forward,
    reference_loss,
    say,
    start,
    text_reference,
    write_model,
)
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from verl.models.transformers.monkey_patch import apply_monkey_patch

from contextrl_verl.grpo.option_rows import OptionRows

LAYERS = ("q_proj", "v_proj", "down_proj")
CASES = {
    "minis": ({}, 4),
    "dynamic": ({"dynamic": True}, 1),
}
# Name -> fields of the setup; each with an untied head, packed, in two mini-batches.
OPTIONS = {
    "checkpointing": {"model": {"enable_gradient_checkpointing": True}},
    "no reshard, prefetch": {"engine": {"reshard_after_forward": False, "forward_prefetch": True}},
    "static padding": {"engine": {"pad_to_length": True, "pad_to_length_bucket": 64}},
    "entropy": {"batch": {"calculate_entropy": True}},
    "gradients reduced in every micro-batch": {"engine": {"use_no_sync_for_gradient_accumulation": False}},
    "offloaded activations": {"model": {"enable_gradient_checkpointing": True, "enable_activation_offload": True}},
    "offloaded parameters": {"engine": {"param_offload": True, "optimizer_offload": True}},
}


def same_adapters(model) -> None:
    """Adapters of fixed random numbers, B too, which peft starts at zero."""
    g = torch.Generator().manual_seed(5)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=g) * 0.2)


def run(folder: str, case: str, setup: Setup, minis: int, temperature: float = 0.7) -> None:
    if setup.lora:
        from contextrl_verl.grpo.engine import ContextRLEngine

        build = ContextRLEngine._build_lora_module

        def filled(self, module):
            module = build(self, module)
            same_adapters(module)
            return module

        ContextRLEngine._build_lora_module = filled
        try:
            engine = make_engine(folder, setup)
        finally:
            ContextRLEngine._build_lora_module = build
    else:
        engine = make_engine(folder, setup)
    reference = text_reference(folder, setup.lora)
    if setup.lora:
        same_adapters(reference)
    error, cosine, metrics = compare(engine, reference, make_rows(seed=1), setup, "token-mean", temperature, minis)
    put_back_forward()
    say(case=case, error=error, cosine=cosine, pairs=[m["contextrl/pairs"].values for m in metrics])


def verl_alone(folder: str) -> None:
    """verl's own engine with fused kernels and an untied head, on ordinary rows: its error, or what it stops with."""
    setup = Setup(fused="torch", ours=False)
    rows = [row for row in make_rows(seed=1) if row["pair"] is None]
    reference = text_reference(folder)
    reference_loss(reference, rows, "token-mean", 1.0, 0.0).backward()
    try:
        engine = make_engine(folder, setup)
        with engine.train_mode():
            found, _ = gradients(engine, rows, setup, actor_config("token-mean"))
        error, _ = difference(found, {name: p.grad for name, p in reference.named_parameters()})
        say(alone="untied", error=error)
    except RuntimeError as stopped:
        say(alone="untied", stopped=str(stopped).splitlines()[0])


def offload_unpinned() -> None:
    """verl pins the memory of offloaded activations, which a machine without an accelerator cannot."""
    from verl.utils.activation_offload import SynchronizedGroupOffloadHandler

    real = SynchronizedGroupOffloadHandler.offload
    SynchronizedGroupOffloadHandler.offload = staticmethod(lambda tensor, pin_memory=True: real(tensor, False))


def triton_without_a_gpu() -> None:
    """verl's triton kernel by its shapes: flat log-probabilities and entropies of contiguous hidden states."""
    import verl.utils.kernel.linear_cross_entropy as kernel

    def linear_cross_entropy(hidden, weight, labels, temperature=1.0, reduction="none"):
        assert isinstance(temperature, float)
        logits = hidden.view(-1, hidden.shape[-1]) @ weight.t() / temperature
        logp = torch.log_softmax(logits.float(), -1)
        return logp.gather(-1, labels.view(-1, 1))[:, 0], -(logp.exp() * logp).sum(-1)

    kernel.linear_cross_entropy = linear_cross_entropy


def fsdp1(folder: str, tied: bool) -> None:
    """torch's FSDP1 around a hooked model with verl's fused forward; verl itself cannot load FSDP1 on a CPU."""
    model, rows = text_reference(folder), OptionRows()
    put_back_forward()
    del model.forward
    apply_monkey_patch(model, use_fused_kernels=True, fused_kernels_backend="torch")
    rows.attach(model)
    wrap = partial(transformer_auto_wrap_policy, transformer_layer_cls={Qwen2DecoderLayer})
    module = FSDP(model, auto_wrap_policy=wrap, use_orig_params=True, device_id=torch.device("cpu"))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    ids = torch.randint(1, VOCABULARY, (ranks, 1, 12), generator=torch.Generator().manual_seed(2))
    where = torch.zeros(2, dtype=torch.long), torch.tensor([4, 9])

    def loss(log_probs, logits):
        return log_probs.sum() + COEF * (logits[:, 5] - logits[:, 7]).sigmoid().log().sum()

    rows.read = where
    positions, labels = torch.arange(12)[None], ids[rank].roll(-1, 1)
    output = module(
        input_ids=ids[rank],
        position_ids=positions,
        use_cache=False,
        temperature=1.0,
        return_dict=True,
        shift_labels=labels,
    )
    loss(output.log_probs, output.logits).backward()
    put_back_forward()
    reference = text_reference(folder)
    for one in ids:
        logits = reference(one).logits
        (loss(logits.log_softmax(-1).gather(-1, one.roll(-1, 1)[..., None]), logits[where]) / ranks).backward()
    with FSDP.summon_full_params(module, with_grads=True):
        found = {plain_name(name): p.grad.clone() for name, p in module.named_parameters()}
    error, cosine = difference(found, {name: p.grad for name, p in reference.named_parameters()})
    say(fsdp1="tied" if tied else "untied", error=error, cosine=cosine)


def main(folder: str, extent: str = "half") -> None:
    start()
    offload_unpinned()
    triton_without_a_gpu()
    whole = extent == "all"
    folders = {tied: write_model(folder, tied) for tied in (True, False)}
    for tied, path in folders.items():
        for packed in (True, False):
            for name, (fields, minis) in CASES.items():
                # Every two of the three settings together, at least.
                if not whole and tied ^ packed ^ ("dynamic" in fields):
                    continue
                case = f"fused {'tied' if tied else 'untied'} {'packed' if packed else 'padded'} {name}"
                run(path, case, Setup(fused="torch", packed=packed, **fields), minis)
        # Padded, verl alone fails with triton.
        run(path, f"triton {'tied' if tied else 'untied'} packed", Setup(fused="triton"), 4)
        for fused in ("torch", None) if whole or tied else ("torch",):
            run(path, f"lora {'tied' if tied else 'untied'} {fused}", Setup(fused=fused, lora=LAYERS), 2)
    # Without fused kernels an untied head is an FSDP unit of its own; the trimmed positions pass through it.
    run(folders[False], "untied packed", Setup(), 4)
    for name, fields in OPTIONS.items():
        for fused in ("torch", None) if whole else ("torch",):
            run(folders[False], f"{name} {fused}", Setup(fused=fused, **fields), 2)
    for tied, path in folders.items():
        fsdp1(path, tied)
    verl_alone(folders[False])
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
