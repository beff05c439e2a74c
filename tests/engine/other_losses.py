"""Whether pairs leave each of verl's policy losses alone: gradient with pairs - without = lambda * mean L_CA's.

Prints one JSON line a case: {"loss", "error", "share"}: the largest difference of the two sides, relative to the
largest gradient with pairs, and how large the pairs' part is by the same measure. Old log-probabilities are off, so
ratios are not 1, and ordinary rows stand in one micro-batch in both runs. Argument: folder of the model.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from tiny_engine import (
    COEF,
    Setup,
    actor_config,
    gradients,
    make_engine,
    make_rows,
    pair_loss,
    say,
    start,
    text_reference,
    write_model,
)
from verl.workers.config.actor import PolicyLossConfig

MODES = ("vanilla", "gspo", "cispo", "dppo_tv", "dppo_kl", "sapo", "gpg", "clip_cov", "kl_cov", "dro")
AGGREGATIONS = ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
# DAPO's: clip-higher and a mean over tokens; entropy in the loss, computed in chunks and recomputed in the backward.
OTHERS = {
    "clip higher": ({"clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 10.0}, {}, {}),
    "entropy in chunks": (
        {"entropy_coeff": 0.1},
        {"entropy_from_logits_with_chunking": True, "entropy_from_logits_chunk_size": 8},
        {"calculate_entropy": True},
    ),
    "entropy checkpointed": (
        {"entropy_coeff": 0.1},
        {"entropy_checkpointing": True},
        {"calculate_entropy": True},
    ),
    "entropy compiled": ({"entropy_coeff": 0.1}, {"use_torch_compile": True}, {"calculate_entropy": True}),
    "sum of squares": ({}, {}, {"calculate_sum_pi_squared": True}),
}


def measure(folder: str, name: str, mode: str, actor: dict, engine: dict, batch: dict) -> None:
    rows = make_rows(seed=1)
    g = torch.Generator().manual_seed(2)
    for row in rows:
        length = len(row["ids"]) - row["prompt"]
        row["old"] = -4.5 + torch.randn(length, generator=g) if row["pair"] is None else torch.zeros(1)
    ordinary = [row for row in rows if row["pair"] is None]
    config = actor_config(mode, use_torch_compile=False, **actor)
    whole = {"micro_batch_size_per_gpu": len(rows), **batch}
    setup = Setup(engine=engine, batch=whole)
    engine_with = make_engine(folder, setup)
    with engine_with.train_mode():
        torch.manual_seed(0)
        both, _ = gradients(engine_with, rows, setup, config)
    setup = Setup(engine=engine, batch={**whole, "micro_batch_size_per_gpu": len(ordinary)}, ours=False)
    plain = make_engine(folder, setup)
    with plain.train_mode():
        torch.manual_seed(0)
        alone, _ = gradients(plain, ordinary, setup, config)
    reference = text_reference(folder)
    losses = [pair_loss(reference(row["ids"][None]).logits[0], row) for row in rows if row["pair"] is not None]
    (COEF * sum(losses) / len(losses)).backward()
    pairs = {name: p.grad for name, p in reference.named_parameters()}
    flat = [torch.cat([grads[name].flatten() for name in pairs]) for grads in (both, alone, pairs)]
    largest = flat[0].abs().max()
    error, share = (flat[0] - flat[1] - flat[2]).abs().max() / largest, flat[2].abs().max() / largest
    say(loss=name, error=error.item(), share=share.item(), finite=bool(torch.isfinite(flat[1]).all()))


def main(folder: str) -> None:
    start()
    write_model(folder)
    for mode in MODES:
        loss = PolicyLossConfig(loss_mode=mode, dro_beta=0.1 if mode == "dro" else None)
        measure(folder, mode, "token-mean", {"policy_loss": loss}, {}, {})
    for mode in AGGREGATIONS[1:]:
        measure(folder, mode, mode, {}, {}, {})
    for name, fields in OTHERS.items():
        measure(folder, name, "token-mean", *fields)
    # Refused in a job, because it counts rows without a token too.
    measure(folder, "geo_mean", "token-mean", {"policy_loss": PolicyLossConfig(loss_mode="geo_mean")}, {}, {})
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
