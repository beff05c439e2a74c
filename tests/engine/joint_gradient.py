"""Compares the engine's gradients with plain autograd.

Prints one JSON line a case on rank 0: {"case", "error", "cosine", "pairs", "head", "kept"}. error is the largest
absolute difference over all parameters, relative to the largest gradient, and cosine that of the two, both at their
worst mini-batch; head is how many positions the output head saw, and kept how many there are without those of pairs
that nobody reads. Arguments: folder of the model; all, or else half of the cases, every two of their settings together.
"""

from __future__ import annotations

import itertools
import sys

import torch.distributed as dist
from tiny_engine import Setup, compare, make_engine, make_rows, say, share, start, text_reference, write_model


def main(folder: str, every: str = "") -> None:
    start()
    write_model(folder)
    modes = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean")
    # Whole batch, four mini-batches, and four of which each holds pairs or ordinary rows alone.
    kinds = ((1, False), (4, False), (4, True))
    cases = itertools.product(range(3), (False, True), range(3))
    for number, (mode_at, packed, kind_at) in enumerate(cases):
        if not every and (mode_at + kind_at + dist.get_world_size()) % 2 == packed:
            continue
        mode, (minis, apart) = modes[mode_at], kinds[kind_at]
        temperature = (1.0, 0.7)[number % 2]
        setup = Setup(packed=packed, dynamic=minis == 1)
        rows = make_rows(seed=1)
        if apart:
            rows.sort(key=lambda row: row["pair"] is None)
        engine, reference = make_engine(folder, setup), text_reference(folder)
        seen = []
        engine.module.lm_head.register_forward_pre_hook(lambda head, given, seen=seen: seen.append(given[0].shape[1]))
        error, cosine, metrics = compare(engine, reference, rows, setup, mode, temperature, minis)
        size = len(rows) // minis
        mine = [row for at in range(minis) for row in share(engine, rows[at * size : (at + 1) * size])]
        kept = sum(len(row["ids"]) if row["pair"] is None else 2 for row in mine)
        case = f"{mode} T={temperature} {'packed' if packed else 'padded'} minis={minis}{' apart' * apart}"
        pairs = [m["contextrl/pairs"].values for m in metrics]
        say(case=case, error=error, cosine=cosine, pairs=pairs, packed=packed, head=sum(seen), kept=kept)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
