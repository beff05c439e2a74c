"""Peak memory and time of one pair's forward and backward pass: logits of all its positions beside those that are read.

Plain torch and transformers with the hook of contextrl_verl.grpo.option_rows, as the engine uses it for packed rows: a
Qwen2 with a vocabulary of 150,000, the context-awareness loss, and log-probabilities of every position that the head
saw, as verl computes them; layers are recomputed in the backward pass, as the recipes have it. Every figure is from a
process of its own; memory is that of weights, gradients, activations and logits at its highest.

    python -m bench.pair_memory [--device cuda] [--tokens 2048 --tokens 8192]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from bench.common import fresh, resident

VOCABULARY = 150_000
# Device -> width, precision: small where one core computes, the width of an 8B model on a GPU.
SIZES = {"cpu": (64, "float32"), "cuda": (4096, "bfloat16")}
# Which positions go through the output head: all of them, or those that are read.
KINDS = {"all": "all logits", "read": "those read"}
_ONE = "import json; from bench.pair_memory import measure; print(json.dumps(measure({!r}, {}, {!r})))"


def measure(kind: str, tokens: int, device: str = "cpu") -> dict[str, float]:
    """One pair of ``tokens`` in this process: bytes, seconds, the loss and the norm of the gradient."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from contextrl_verl.grpo.option_rows import OptionRows, kept_positions, option_positions
    from contextrl_verl.objective import context_awareness_loss

    width, precision = SIZES[device]
    before = resident("VmRSS")
    torch.manual_seed(0)
    layers = {"num_hidden_layers": 2, "num_attention_heads": max(4, width // 128), "num_key_value_heads": 2}
    widths = {"hidden_size": width, "intermediate_size": 2 * width, "max_position_embeddings": 65_536}
    config = Qwen2Config(vocab_size=VOCABULARY, tie_word_embeddings=False, **widths, **layers)
    model = Qwen2ForCausalLM(config).to(device, getattr(torch, precision))
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    rows = OptionRows()
    rows.attach(model)
    options, pair = torch.tensor([[11, 12]], device=device), torch.tensor([0], device=device)

    def step(length: int) -> float:
        ids = torch.randint(20, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(1)).to(device)
        offsets = torch.tensor([0, length], device=device)
        labels, where = ids.roll(-1, 1)[0], option_positions(offsets, pair, packed=True)
        rows.clear()
        if kind == "read":
            rows.keep, left = kept_positions(offsets, pair)
            labels, where = labels[rows.keep], option_positions(torch.cat([left * 0, left]), pair, packed=True)
        # Without positions, for which transformers would make SDPA a mask of length x length.
        logits = model(input_ids=ids, use_cache=False).logits
        loss = context_awareness_loss(logits[where].float().gather(1, options), pair)
        # verl's part: mask 0, so nothing of it counts, but it is computed.
        log_probs = torch.log_softmax(logits[0].float(), -1).gather(-1, labels[:, None])
        (loss.sum() + 0.0 * log_probs.sum()).backward()
        return float(loss.detach())

    step(64)  # kernels are chosen and loaded now
    model.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    loss = step(tokens)  # reading the loss waits for the GPU
    norm = float(torch.stack([p.grad.float().norm() for p in model.parameters()]).norm())
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resident() - before
    return {"bytes": peak, "seconds": seconds, "loss": loss, "gradient": norm}


def compare(lengths: list[int], device: str) -> list[dict[str, Any]]:
    """Both kinds at every length: [{"tokens", "all", "read"}], None for out of memory; prints each when measured."""
    found = []
    for tokens in lengths:
        row: dict[str, Any] = {"tokens": tokens}
        for kind, name in KINDS.items():
            try:
                row[kind] = one = fresh(_ONE.format(kind, tokens, device))
                said = f"{one['bytes'] / 2**20:,.0f} MiB, {one['seconds']:.2f} s"
            except MemoryError:
                row[kind], said = None, "out of memory"
            print(f"{tokens:>6,} tokens, {name}: {said}", flush=True)
        found.append(row)
        if row["all"] and row["read"]:
            memory, seconds, *same = (row["all"][name] / one for name, one in row["read"].items())
            told = f"{memory:.1f} times less memory, {seconds:.1f} times less time"
            off = max(abs(ratio - 1) for ratio in same)
            print(f"{tokens:>6,} tokens: {told}; loss and gradient differ by {off:.0e}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pair_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=SIZES, default="cpu", help="cuda: of an 8B model's width, in bf16")
    parser.add_argument("--tokens", type=int, action="append", help="length of a pair; may be given several times")
    given = parser.parse_args()
    found = compare(given.tokens or [2048, 8192], given.device)
    for kind, name in KINDS.items():
        first, last = found[0][kind], found[-1][kind]
        if len(found) > 1 and first and last:
            print(f"{name}: {last['bytes'] / first['bytes']:.2f} times the memory at {found[-1]['tokens']:,} tokens")


if __name__ == "__main__":
    main()
