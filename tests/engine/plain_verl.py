"""Run under torchrun-like environment variables: our engine next to verl's own on the same ordinary rows.

Prints one JSON line a case on rank 0: {"case", "bitwise", "relative", "of_change"}, from all weights after one
optimiser step a mini-batch: whether they are the same bits, the norm of the difference over the norm of the weights,
and over the norm of what the steps changed.
"""

from __future__ import annotations

import itertools
import sys
from functools import partial

import torch
import torch.distributed as dist
from tiny_engine import (
    Setup,
    actor_config,
    as_batch,
    full,
    make_engine,
    make_rows,
    put_back_forward,
    say,
    share,
    start,
    write_model,
)
from verl.utils import tensordict_utils as tu
from verl.workers.utils.losses import ppo_loss

MINIS = 2


def weights_after(folder, parts, mode, setup, *, column=True):
    """Train one step a part on this rank's share; the full weights before and after, flat."""
    engine = make_engine(folder, setup)
    before = flat(engine)
    actor = actor_config(mode)
    with engine.train_mode():
        for number, part in enumerate(parts):
            data = as_batch(share(engine, part), setup, 1.0, len(part))
            if not column:
                del data["contextrl"]
            tu.assign_non_tensor(data, update_lr_scheduler=number == len(parts) - 1)
            engine.train_batch(data, partial(ppo_loss, config=actor))
    put_back_forward()
    return before, flat(engine)


def flat(engine) -> torch.Tensor:
    return torch.cat([full(parameter).detach().flatten().clone() for parameter in engine.module.parameters()])


def main(folder: str) -> None:
    start()
    write_model(folder)
    rows = make_rows(seed=3)
    for row in rows:
        row["old"] = torch.full((len(row["ids"]) - row["prompt"],), -4.0)
    ordinary = [row for row in rows if row["pair"] is None]
    pairs = [row for row in rows if row["pair"] is not None]
    half = len(ordinary) // MINIS
    plain = [ordinary[:half], ordinary[half:]]
    # Each mini-batch again, with pairs between its rows; each rank keeps its ordinary rows.
    mixed = [
        [row for couple in zip(part, pairs[number * half :], strict=False) for row in couple]
        for number, part in enumerate(plain)
    ]
    modes = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean")
    setups = [(mode, packed, None) for mode, packed in itertools.product(modes, (False, True))]
    setups += [("token-mean", packed, "torch") for packed in (False, True)]
    for mode, packed, fused in setups:
        verls = Setup(packed=packed, fused=fused, ours=False)
        before, expected = weights_after(folder, plain, mode, verls, column=False)
        change = (expected - before).norm()
        assert change > 0
        for name, parts, column in (("no column", plain, False), ("no pairs", plain, True), ("coef 0", mixed, True)):
            setup = Setup(packed=packed, fused=fused, coef=0.0)
            _, weights = weights_after(folder, parts, mode, setup, column=column)
            off = (weights - expected).norm()
            say(
                case=f"{name}, {mode} {'packed' if packed else 'padded'} fused={fused}",
                bitwise=torch.equal(weights, expected),
                relative=(off / expected.norm()).item(),
                of_change=(off / change).item(),
            )
    lose_a_pair(folder, mixed)
    dist.destroy_process_group()


def lose_a_pair(folder, parts) -> None:
    """Ask for one pair more than the step's mini-batches hold, and for pairs of a batch that knows none."""
    pairs = sum(row["pair"] is not None for part in parts for row in part)
    for asked, column in ((pairs, True), (pairs + 1, True), (pairs, False)):
        setup = Setup(packed=False, coef=0.0, per_batch=asked)
        try:
            weights_after(folder, parts, "token-mean", setup, column=column)
            said = ""
        except RuntimeError as error:
            said = str(error)
        say(asked=asked - pairs, said=said)


if __name__ == "__main__":
    main(sys.argv[1])
