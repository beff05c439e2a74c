"""The engine's joint gradient on a device: FSDP1 and FSDP2, packed and padded, with and without fused kernels.

One JSON line a case, as tests/engine/joint_gradient.py. Argument: folder of the models.
"""

from __future__ import annotations

import itertools
import sys

import torch.distributed as dist
from tiny_engine import (
    DEVICE,
    PRECISION,
    Setup,
    compare,
    make_engine,
    make_rows,
    put_back_forward,
    say,
    start,
    text_reference,
    write_model,
)


def main(folder: str) -> None:
    start()
    # With an untied head logits are larger, and bf16 moves ratios of probabilities across the policy loss's clip.
    folder = write_model(folder, tied=PRECISION == "bf16")
    strategies = ("fsdp2",) if DEVICE == "cpu" else ("fsdp", "fsdp2")
    backends = (None, "torch") if DEVICE == "cpu" else (None, "torch", "triton")
    for strategy, packed, fused in itertools.product(strategies, (True, False), backends):
        case = f"{strategy} {'packed' if packed else 'padded'} fused={fused or 'off'}"
        try:
            setup = Setup(strategy=strategy, packed=packed, fused=fused)
            engine, reference = make_engine(folder, setup), text_reference(folder)
            error, cosine, metrics = compare(engine, reference, make_rows(seed=1), setup, "token-mean", 0.7, 2)
            pairs = sum(m["contextrl/pairs"].values[0] for m in metrics)
            say(case=case, error=error, cosine=cosine, pairs=pairs)
        except Exception as failed:  # the next case still says something; a table with one failure is better than none
            say(case=case, failed=f"{type(failed).__name__}: {' '.join(str(failed).split())[:300]}")
        put_back_forward()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
