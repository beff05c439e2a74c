"""The parts that need no verl, on plain torch, FSDP2 and transformers: hook, objective, positions, trimming.

``gradient_error`` wraps a tiny Qwen2 with FSDP2, reads the option rows of a packed micro-batch in each of the engine's
ways, and compares the gradient with autograd of the same loss on an unwrapped model, one row at a time.
"""

from __future__ import annotations

import torch
from tiny_qwen2 import VOCABULARY, tiny_qwen2
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import Qwen2ForCausalLM

from contextrl_verl.grpo.option_rows import OptionRows, kept_positions, option_positions
from contextrl_verl.objective import context_awareness_loss

OPTIONS = (11, 12)
# How the rows are read -> whether the output head sees all positions, and whether the rows pass through it once more.
WAYS = {"all logits": (True, False), "logits that are read": (False, False), "beside fused kernels": (True, True)}
LENGTHS, PAIRS = (9, 7, 12, 6), (1, 3)


def make_model(tied: bool, attention: str, device: str):
    torch.manual_seed(0)
    config = tiny_qwen2(tied)
    config._attn_implementation = attention
    return Qwen2ForCausalLM(config).to(device)


def loss_of(rows: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    """A mean of the ordinary rows' log-probabilities and of L_CA, in which the first option supports."""
    logits = rows.float()[:, list(OPTIONS)]
    supporting = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    return 0.3 * context_awareness_loss(logits, supporting).mean() - log_probs.mean()


def gradient_error(
    way: str, tied: bool, precision: str, attention: str = "sdpa", device: str = "cpu"
) -> tuple[float, float]:
    """Largest difference relative to the largest gradient, and the cosine. Needs a process group."""
    everything, again = WAYS[way]
    g = torch.Generator().manual_seed(1)
    texts = [torch.randint(20, VOCABULARY, (length,), generator=g) for length in LENGTHS]
    for pair in PAIRS:
        texts[pair][-1] = OPTIONS[0]
    offsets = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], device=device)
    pairs = torch.tensor(PAIRS, device=device)
    ids = torch.cat(texts)[None].to(device)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None].to(device)

    model, reader = make_model(tied, attention, device), OptionRows()
    reader.attach(model)
    if precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    else:
        policy = MixedPrecisionPolicy()
    for layer in model.model.layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    labels, where, left = ids[0].roll(-1), option_positions(offsets, pairs, packed=True), offsets.diff()
    if not everything:
        reader.keep, left = kept_positions(offsets, pairs)
        labels = labels[reader.keep]
        where = option_positions(torch.nn.functional.pad(left.cumsum(0), (1, 0)), pairs, packed=True)
    elif again:
        reader.read = where
    # Where the rows pass through the head once more, the field of all logits is overwritten by them, as with verl's
    # fused forward, which leaves it empty: its log-probabilities come from elsewhere and are left out here.
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    rows = logits if again else logits[where]
    scored = torch.zeros(1, device=device)
    if not again:
        ends = left.cumsum(0)
        mine = [torch.arange(ends[row] - left[row], ends[row] - 1) for row in range(len(LENGTHS)) if row not in PAIRS]
        at = torch.cat(mine).to(device)
        scored = torch.log_softmax(logits[0].float(), -1)[at].gather(-1, labels[at, None])
    loss_of(rows, scored).backward()
    found = {name: p.grad.full_tensor().float() for name, p in model.named_parameters()}

    reference = make_model(tied, "sdpa", device)
    rows, scored = [], []
    for number, text in enumerate(texts):
        logits = reference(input_ids=text[None].to(device)).logits[0]
        if number in PAIRS:
            rows.append(logits[-2])
        elif not again:
            scored.append(torch.log_softmax(logits, -1)[:-1].gather(-1, text[1:, None].to(device)))
    loss_of(torch.stack(rows), torch.cat(scored) if scored else torch.zeros(1, device=device)).backward()
    pairs_of = [(found[name].flatten(), p.grad.flatten()) for name, p in reference.named_parameters()]
    one, two = (torch.cat(side) for side in zip(*pairs_of, strict=True))
    return ((one - two).abs().max() / two.abs().max()).item(), torch.cosine_similarity(one, two, dim=0).item()
