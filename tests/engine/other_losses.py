"""Whether pairs leave each of verl's policy losses alone: gradient with pairs - without = lambda * mean L_CA's.

Prints one JSON line a case: {"loss", "error", "share", "none", "apart"}: the largest difference of the two sides,
relative to the largest gradient with pairs, and how large the pairs' part is by the same measure; then the largest
difference that pairs make with lambda = 0, among the ordinary rows and in a micro-batch of their own, or the error it
raises. Old log-probabilities are off, so ratios are not 1, and ordinary rows stand in one micro-batch in all runs.
Argument: folder of the model.
"""

from __future__ import annotations

import functools
import json
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
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
from verl.workers.config.actor import PolicyLossConfig

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


@functools.lru_cache(1)
def engines(folder: str, options: str):
    """With pairs, with pairs and lambda = 0, and verl's own. Their weights stay as they are."""
    setups = ({}, {"coef": 0.0}, {"ours": False})
    return [make_engine(folder, Setup(engine=json.loads(options), **setup)) for setup in setups]


@functools.lru_cache
def rows_and_pairs(folder: str):
    """Mixed rows with old log-probabilities, and the gradients of lambda * mean L_CA by name."""
    rows = make_rows(seed=1)
    g = torch.Generator().manual_seed(2)
    for row in rows:
        length = len(row["ids"]) - row["prompt"]
        row["old"] = -4.5 + torch.randn(length, generator=g) if row["pair"] is None else torch.zeros(1)
    reference = text_reference(folder)
    losses = [pair_loss(reference(row["ids"][None]).logits[0], row) for row in rows if row["pair"] is not None]
    (COEF * sum(losses) / len(losses)).backward()
    return rows, {name: p.grad for name, p in reference.named_parameters()}


def measure(folder: str, name: str, mode: str, actor: dict, engine: dict, batch: dict) -> None:
    rows, pairs = rows_and_pairs(folder)
    ordinary = [row for row in rows if row["pair"] is None]
    apart = ordinary + [row for row in rows if row["pair"] is not None]
    config = actor_config(mode, use_torch_compile=False, **actor)

    def run(engine, rows: list[dict], size: int) -> torch.Tensor:
        with engine.train_mode():
            torch.manual_seed(0)
            found, _ = gradients(engine, rows, Setup(batch={"micro_batch_size_per_gpu": size, **batch}), config)
        return torch.cat([found[name].flatten() for name in pairs])

    def error(found: torch.Tensor, expected: torch.Tensor) -> float:
        return ((found - expected).abs().max() / found.abs().max()).item()

    joint, unweighted, plain = engines(folder, json.dumps(engine))
    both, alone = run(joint, rows, len(rows)), run(plain, ordinary, len(ordinary))
    none = run(unweighted, rows, len(rows))
    own = torch.cat([grad.flatten() for grad in pairs.values()])
    try:
        by_themselves = error(run(unweighted, apart, len(ordinary)), alone)
    except ValueError as problem:
        by_themselves = str(problem)
        engines.cache_clear()  # that engine stopped between two micro-batches
    say(
        loss=name,
        error=error(both, alone + own),
        share=error(both, both - own),
        none=error(none, alone),
        apart=by_themselves,
        finite=bool(torch.isfinite(alone).all()),
    )


def main(folder: str) -> None:
    start()
    write_model(folder)
    for mode in POLICY_LOSS_REGISTRY:
        loss = PolicyLossConfig(loss_mode=mode, dro_beta=0.1 if mode == "dro" else None)
        measure(folder, mode, "token-mean", {"policy_loss": loss}, {}, {})
    for mode in AGGREGATIONS[1:]:
        measure(folder, mode, mode, {}, {}, {})
    for name, fields in OTHERS.items():
        measure(folder, name, "token-mean", *fields)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
