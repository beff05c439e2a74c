"""Run under torchrun-like environment variables: a scoring pass of our engine next to one of verl's own.

Prints one JSON line a case on rank 0: {"case", "error", "lengths", "forwarded", "expected", "images"}: the largest
difference of an ordinary row's log-probabilities or entropies, whether all rows kept their lengths, the tokens that
entered the model on this rank and those that should have, and rows of image patches by engine.
Arguments: folder of the model, and its family for a vision model.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from image_gradient import make_rows as make_image_rows
from tiny_engine import ATTENTION, Setup, as_batch, make_engine, make_rows, say, start, write_model
from verl.utils import hf_processor
from verl.utils import tensordict_utils as tu

from contextrl_verl.demo.tiny_model import make_tokenizer
from contextrl_verl.demo.tiny_vision import make_model, make_processor


def score(folder, rows, setup: Setup):
    """log-probabilities and entropies of the rows, and what entered the model: (tokens, rows of patches)."""
    engine = make_engine(folder, setup)
    entered = [0, 0]

    def count(module, args, kwargs):
        entered[0] += kwargs["input_ids"].numel()
        entered[1] += len(kwargs.get("pixel_values", ()))

    engine.module.register_forward_pre_hook(count, with_kwargs=True)
    for row in rows:
        row["old"] = torch.zeros(len(row["ids"]) - row["prompt"])
    data = as_batch(rows, setup, 0.7, len(rows))
    tu.assign_non_tensor(data, calculate_entropy=True)
    with engine.eval_mode():
        output = engine.infer_batch(data)["model_output"]
    return output, entered


def beside_each_other(folder, rows) -> None:
    """Packed micro-batches by what stands where: what neighbours change in the scores of a row, and if all are finite.

    A row alone and beside others should have the same scores.
    """
    pairs, ordinary = ([row for row in rows if (row["pair"] is not None) is kind] for kind in (True, False))
    for name, mixed in {
        "pairs only": pairs[:2],
        "pair first": [pairs[0], ordinary[0]],
        "pair behind a row": [ordinary[0], pairs[0]],
    }.items():
        try:
            alone = [score(folder, [row], Setup())[0]["log_probs"].values() for row in mixed]
            together = score(folder, mixed, Setup())[0]["log_probs"]
        except RuntimeError as failed:
            case = {"beside": name, "failed": str(failed)}
        else:
            # The last score of a row belongs to the row behind it and is of no use.
            error = [(a - b)[:-1].abs().max().item() for a, b in zip(alone, together.unbind(), strict=True)]
            finite = bool(torch.isfinite(together.values()).all())
            case = {"beside": name, "error": max(error), "finite": finite}
        say(**case)


def main(folder: str, family: str | None = None) -> None:
    start()
    if family is None:
        write_model(folder)
        rows = make_rows(seed=5)
    else:
        if dist.get_rank() == 0 and not os.path.exists(folder):
            processor = make_processor(make_tokenizer(), family)
            make_model(processor, family, folder)
        dist.barrier()
        rows = make_image_rows(hf_processor(folder))
    if family is None:
        beside_each_other(folder, rows)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    mine = rows[rank * len(rows) // ranks : (rank + 1) * len(rows) // ranks]
    # Qwen2.5-VL's packed attention in verl needs flash-attn.
    for packed in (False,) if family == "qwen2_5_vl" and ATTENTION == "sdpa" else (False, True):
        for dynamic in (False, True):
            theirs, whole = score(folder, mine, Setup(packed=packed, dynamic=dynamic, ours=False))
            ours, entered = score(folder, mine, Setup(packed=packed, dynamic=dynamic))
            error, lengths = 0.0, True
            for name in ("log_probs", "entropy"):
                for row, a, b in zip(mine, ours[name].unbind(), theirs[name].unbind(), strict=True):
                    lengths = lengths and len(a) == len(b) == len(row["ids"])
                    if row["pair"] is None:
                        # The last score of a row belongs to the row behind it and is of no use.
                        error = max(error, (a - b)[:-1].abs().max().item())
            pixels = [len(row["images"].get("pixel_values", ())) for row in mine if family and row["pair"] is None]
            say(
                case=f"{family or 'text'} {'packed' if packed else 'padded'} dynamic={dynamic}",
                packed=packed,
                error=error,
                lengths=lengths,
                forwarded=[entered[0], whole[0]],
                expected=sum(2 if row["pair"] is not None else len(row["ids"]) for row in mine),
                images=[entered[1], whole[1]],
                expected_images=sum(pixels),
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
