"""Run under torchrun-like environment variables: our engine next to verl's own on the same ordinary rows.

Prints one JSON line a case on rank 0: {"case", "bitwise", "relative", "of_change"}, from all weights after one
optimiser step a mini-batch: whether they are the same bits, the norm of the difference over the norm of the weights,
and over the norm of what the steps changed.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import torch
import torch.distributed as dist
from joint_gradient import as_batch, full, make_engine, make_rows, write_model
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig, FSDPEngineConfig
from verl.workers.utils.losses import ppo_loss

MINIS = 2


def weights_after(folder, parts, mode, packed, *, ours, coef=0.0, column=True, per_batch=0):
    """Train one step a part on this rank's share; the full weights before and after, flat."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    engine = make_engine(folder, "fsdp2", packed, False, coef, ours=ours, per_batch=per_batch)
    before = flat(engine)
    actor = FSDPActorConfig(
        loss_agg_mode=mode,
        strategy="fsdp2",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=2,
        fsdp_config=FSDPEngineConfig(),
    )
    with engine.train_mode():
        for number, part in enumerate(parts):
            mine = part[rank * len(part) // ranks : (rank + 1) * len(part) // ranks]
            data = as_batch(mine, 1.0, packed, False, 2, len(part))
            if not column:
                del data["contextrl"]
            tu.assign_non_tensor(data, update_lr_scheduler=number == len(parts) - 1)
            engine.train_batch(data, partial(ppo_loss, config=actor))
    return before, flat(engine)


def flat(engine) -> torch.Tensor:
    return torch.cat([full(parameter).detach().flatten().clone() for parameter in engine.module.parameters()])


def main(folder: str) -> None:
    dist.init_process_group("gloo")
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
    for mode in ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean"):
        for packed in (False, True):
            before, expected = weights_after(folder, plain, mode, packed, ours=False, column=False)
            change = (expected - before).norm()
            assert change > 0
            for name, parts, column in (
                ("no column", plain, False),
                ("no pairs", plain, True),
                ("coef 0", mixed, True),
            ):
                _, weights = weights_after(folder, parts, mode, packed, ours=True, column=column)
                if dist.get_rank() == 0:
                    off = (weights - expected).norm()
                    line = {
                        "case": f"{name}, {mode} {'packed' if packed else 'padded'}",
                        "bitwise": torch.equal(weights, expected),
                        "relative": (off / expected.norm()).item(),
                        "of_change": (off / change).item(),
                    }
                    print(json.dumps(line), flush=True)
    lose_a_pair(folder, mixed)
    dist.destroy_process_group()


def lose_a_pair(folder, parts) -> None:
    """Ask for one pair more than the step's mini-batches hold; print what the engine says."""
    pairs = sum(row["pair"] is not None for part in parts for row in part)
    for asked in (pairs, pairs + 1):
        try:
            weights_after(folder, parts, "token-mean", False, ours=True, per_batch=asked)
            said = ""
        except RuntimeError as error:
            said = str(error)
        if dist.get_rank() == 0:
            print(json.dumps({"asked": asked - pairs, "said": said}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
