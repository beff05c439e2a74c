"""Compares the engine's gradients with plain autograd.

Prints one JSON line a case on rank 0: {"case", "error", "cosine", "pairs"}; error is the largest absolute difference
over all parameters, relative to the largest gradient, and cosine that of the two, both at their worst mini-batch.
Argument: folder of the model.
"""

from __future__ import annotations

import itertools
import sys

import torch.distributed as dist
from tiny_engine import Setup, compare, make_engine, make_rows, say, start, text_reference, write_model


def main(folder: str) -> None:
    start()
    write_model(folder)
    modes = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean")
    # Whole batch, four mini-batches, and four of which each holds pairs or ordinary rows alone.
    kinds = ((1, False), (4, False), (4, True))
    for number, (mode, packed, (minis, apart)) in enumerate(itertools.product(modes, (False, True), kinds)):
        temperature = (1.0, 0.7)[number % 2]
        setup = Setup(packed=packed, dynamic=minis == 1)
        rows = make_rows(seed=1)
        if apart:
            rows.sort(key=lambda row: row["pair"] is None)
        engine, reference = make_engine(folder, setup), text_reference(folder)
        error, cosine, metrics = compare(engine, reference, rows, setup, mode, temperature, minis)
        case = f"{mode} T={temperature} {'packed' if packed else 'padded'} minis={minis}{' apart' * apart}"
        say(case=case, error=error, cosine=cosine, pairs=[m["contextrl/pairs"].values for m in metrics])
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
