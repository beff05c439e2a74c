"""As joint_gradient.py, with ranks that share a sequence (Ulysses): all of them, or two by two as data-parallel groups.

Besides the fields of joint_gradient.py: "owners", the ranks that held the pairs' positions; "without", how many
micro-batches had no pair; "same", whether all ranks reported the same metrics. Then scoring passes beside verl's own,
and mutations of how rows are gathered. Arguments: folder of the models.
"""

from __future__ import annotations

import itertools
import sys

import torch
import torch.distributed as dist
from tiny_engine import (
    Setup,
    as_batch,
    compare,
    make_engine,
    make_rows,
    put_back_forward,
    say,
    share,
    start,
    text_reference,
    write_model,
)
from verl.utils import tensordict_utils as tu

from contextrl_verl.grpo import engine as engine_module

SHARING = 2


def run(folder: str, case: dict, setup: Setup, mode: str, minis: int, rows: list[dict]) -> None:
    engine, reference = make_engine(folder, setup), text_reference(folder)
    owners, without = [], 0
    plan = engine._plan_reading

    def watched(*args):
        nonlocal without
        reading = plan(*args)
        owners.extend(reading.owner.tolist())
        without += len(reading.pairs) == 0
        return reading

    engine._plan_reading = watched
    error, cosine, metrics = compare(engine, reference, rows, setup, mode, 0.7, minis)
    put_back_forward()
    said = [{name: value.values for name, value in part.items() if name.startswith("contextrl/")} for part in metrics]
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, said)
    # Ranks of one sequence report the same; data-parallel groups have their own sums.
    same = all(every[rank] == every[rank // SHARING * SHARING] for rank in range(len(every)))
    pairs = [part["contextrl/pairs"] for part in said]
    say(**case, error=error, cosine=cosine, pairs=pairs, owners=owners, without=without, same=same)


def score(folder: str, rows: list[dict], setup: Setup):
    engine = make_engine(folder, setup)
    data = as_batch(share(engine, rows), setup, 0.7, len(rows))
    tu.assign_non_tensor(data, calculate_entropy=True)
    with engine.eval_mode():
        output = engine.infer_batch(data)["model_output"]
    put_back_forward()
    return share(engine, rows), output


def compare_scores(folder: str, fused: str | None) -> None:
    rows = make_rows(seed=5)
    for row in rows:
        row["old"] = torch.zeros(len(row["ids"]) - row["prompt"])
    setup = {"fused": fused, "ranks": SHARING, "dynamic": True}
    mine, ours = score(folder, rows, Setup(**setup))
    _, theirs = score(folder, rows, Setup(**setup, ours=False))
    error = max(
        (a - b)[:-1].abs().max().item()
        for name in ("log_probs", "entropy")
        for row, a, b in zip(mine, ours[name].unbind(), theirs[name].unbind(), strict=True)
        if row["pair"] is None
    )
    lengths = all(len(a) == len(row["ids"]) for row, a in zip(mine, ours["log_probs"].unbind(), strict=True))
    say(scores=str(fused), error=error, lengths=lengths)


def mutate(folder: str) -> None:
    """The gradient's error with rows gathered wrongly."""
    real = engine_module.gather_outputs_and_unpad
    for name, wrong in {
        "no factor": lambda x, gather_dim: real(x, gather_dim=gather_dim, grad_scaler=False),
        "no gather": lambda x, gather_dim: torch.cat([x] * SHARING),
    }.items():
        engine_module.gather_outputs_and_unpad = wrong
        setup = Setup(ranks=SHARING)
        engine, rows = make_engine(folder, setup), make_rows(seed=1)
        stopped = None
        try:
            error, _, _ = compare(engine, text_reference(folder), rows, setup, "token-mean", 1.0, 1)
        except RuntimeError as refused:
            stopped = str(refused)
            engine._labels_agree = True  # the same without the engine's own check
            error, _, _ = compare(engine, text_reference(folder), rows, setup, "token-mean", 1.0, 1)
        say(mutation=name, stopped=stopped, error=error)


def main(folder: str) -> None:
    start()
    folders = {tied: write_model(folder, tied) for tied in (True, False)}
    rows = make_rows(seed=1)
    modes = itertools.cycle(("token-mean", "seq-mean-token-sum", "seq-mean-token-mean"))
    for tied, fused, minis in itertools.product((True, False), ("torch", None), (1, 4)):
        mode = next(modes)
        if dist.get_world_size() > SHARING and tied:
            continue  # slow on two cores
        case = {"case": f"{'tied' if tied else 'untied'} {fused} {mode} minis={minis}"}
        setup = Setup(fused=fused, ranks=SHARING, dynamic=minis == 1)
        run(folders[tied], case, setup, mode, minis, list(rows))
    padded = {"pad_to_length": True, "pad_to_length_bucket": 64}
    for fused in ("torch", None):
        setup = Setup(fused=fused, ranks=SHARING, engine=padded)
        run(folders[True], {"case": f"static padding {fused}"}, setup, "token-mean", 2, list(rows))
    if dist.get_world_size() == SHARING:
        for fused in ("torch", None):
            compare_scores(folders[True], fused)
        mutate(folders[True])
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
