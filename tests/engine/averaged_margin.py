"""As joint_gradient.py, with margins averaged over all rotations of a pair, and with the weight of the labels' mass.

Arguments: folder of the model, and "all" for every case with two options and with three; without it each has half of
them. The last line is a mutation: one rotation's margin left out.
"""

from __future__ import annotations

import sys

import torch.distributed as dist
from tiny_engine import (
    ATTENTION,
    Setup,
    compare,
    in_all_rotations,
    make_engine,
    make_rows,
    put_back_forward,
    say,
    start,
    text_reference,
    write_model,
)

from contextrl_verl.grpo import engine as engine_module


def run(folder: str, rows: list[dict], setup: Setup, mode: str, minis: int, **said) -> None:
    engine, reference = make_engine(folder, setup), text_reference(folder)
    error, cosine, metrics = compare(engine, reference, list(rows), setup, mode, 0.7, minis)
    put_back_forward()
    say(**said, error=error, cosine=cosine, pairs=[m["contextrl/pairs"].values for m in metrics])


# How losses are averaged, mini-batches, the setup.
CASES = [
    ("token-mean", 1, {"dynamic": True}),
    ("seq-mean-token-sum", 4, {}),
    ("seq-mean-token-mean", 4, {"packed": False}),
    ("token-mean", 2, {"fused": "torch"}),
    ("token-mean", 2, {"fused": "torch", "packed": False}),
    # One row a micro-batch: a pair is whole in it all the same.
    ("token-mean", 1, {"batch": {"micro_batch_size_per_gpu": 1}}),
]


def main(folder: str, extent: str = "half") -> None:
    start()
    write_model(folder)
    for options in (2, 3):
        mine = slice(None) if extent == "all" else slice(options - 2, None, 2)
        rows = in_all_rotations(make_rows(seed=1), options)
        for mode, minis, setup in CASES[mine]:
            case = f"{options} options {mode} minis={minis} {setup}"
            run(folder, rows, Setup(margin="averaged", **setup), mode, minis, case=case)
        if ATTENTION != "sdpa" and dist.get_world_size() == 2:
            for fused in (None, "torch")[mine]:
                setup = Setup(margin="averaged", ranks=2, fused=fused)
                run(folder, rows, setup, "token-mean", 2, case=f"{options} options, a sequence on two ranks, {fused}")
    for packed in (True, False):
        run(folder, make_rows(seed=1), Setup(mass=0.4, packed=packed), "token-mean", 2, case=f"mass packed={packed}")
    real = engine_module.averaged_margins
    engine_module.averaged_margins = lambda logits, supporting: real(
        logits[:, [0, *range(logits.shape[1] - 1)]], supporting[:, [0, *range(logits.shape[1] - 1)]]
    )
    rows = in_all_rotations(make_rows(seed=1), 2)
    run(folder, rows, Setup(margin="averaged"), "token-mean", 1, mutation="one rotation left out")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
