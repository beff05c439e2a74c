"""Rows of pairs as the model sees them, where those are others than verl's: taken apart, or without their contexts.

A pair in all rotations of its contexts (``contextrl.loss.margin=averaged``) is one row to verl, so it stays whole in
every mini-batch, micro-batch and rank, and what verl balances by is what the pair costs. Only the model sees a row for
each rotation, with positions of its own. Tokens keep their order, so values of the rows taken apart are those of the
whole row, one after another, and images need not be touched.

In scoring passes (old_log_prob, reference), which verl makes of every row before the update, a pair's scores multiply a
response mask of zero, and its contexts, often the longest rows of a batch, would be read for nothing. There its row is
its last two tokens. Rows are kept, and not left out, so that every rank and micro-batch has as many as verl divided.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from contextrl_verl.grpo.batch_column import COLUMN, PARTS, dense, pair_rows
from contextrl_verl.grpo.option_rows import KEPT

_IMAGES, _EXTRA = "multi_modal_inputs", "extra_fields"
_TOKENS = ("input_ids", "position_ids")
# Of the whole row, and not needed by a forward pass.
_RESPONSES = ("prompts", "responses", "response_mask", "loss_mask", "attention_mask")


def taken_apart(micro_batch: TensorDict) -> TensorDict:
    """The micro-batch with a row for each rotation of its pairs; ``micro_batch`` stays as it is.

    Only what a forward pass needs is kept right: ``input_ids``, ``position_ids``, images, the temperature, and the
    column, which then tells of each rotation where it shows the supporting context.

    Raises:
        RuntimeError: the parts of a pair's row are not told, or do not add up.
    """
    ids, column = micro_batch["input_ids"], dense(micro_batch[COLUMN])
    pairs = set(pair_rows(column, ids).tolist())
    sizes = [
        _parts(micro_batch, row, length, int(column[row, 0])) if row in pairs else [length]
        for row, length in enumerate(ids.offsets().diff().tolist())
    ]
    source = torch.tensor([row for row, parts in enumerate(sizes) for _ in parts], device=column.device)
    apart = tu.index_select_tensor_dict(micro_batch.exclude(*_RESPONSES, *_TOKENS, _IMAGES, COLUMN), source)
    for key in _TOKENS:
        rows = [
            part for row, parts in zip(micro_batch[key].unbind(), sizes, strict=True) for part in row.split(parts, -1)
        ]
        apart[key] = _jagged(rows, key)
    apart[COLUMN] = torch.cat([_columns(column[row], len(parts)) for row, parts in enumerate(sizes)])
    if _IMAGES in micro_batch.keys():
        # In the order of their tokens, so all of a row's may stand with its first part.
        images = [
            one if first else {}
            for one, parts in zip(micro_batch[_IMAGES], sizes, strict=True)
            for first in [True] + [False] * (len(parts) - 1)
        ]
        tu.assign_non_tensor_stack(apart, _IMAGES, images)
    return apart


def without_contexts(data: TensorDict) -> tuple[TensorDict, torch.Tensor]:
    """The batch with every pair's row cut to its last two tokens and without images; ``data`` stays as it is.

    ``input_ids`` are (rows, *), ``position_ids`` (rows, *) or (rows, 4, *), jagged. The second result is the rows'
    lengths before: (rows,) int64.
    """
    ids = data["input_ids"]
    lengths = ids.offsets().diff()
    pairs = set(pair_rows(dense(data[COLUMN]), ids).tolist())
    short = data.copy()
    if not pairs:
        return short, lengths
    for key in _TOKENS:
        rows = [row[..., -KEPT:] if at in pairs else row for at, row in enumerate(data[key].unbind())]
        short[key] = _jagged(rows, key)
    if _IMAGES in data.keys():
        images = [{} if at in pairs else one for at, one in enumerate(data[_IMAGES])]
        tu.assign_non_tensor_stack(short, _IMAGES, images)
    return short, lengths


def _jagged(rows: list[torch.Tensor], key: str) -> torch.Tensor:
    if key == "position_ids":
        # From 0: rotary positions are relative, and flash-attention finds the rows of a packed batch by it.
        rows = [row - row[..., :1] for row in rows]
    return tu.nested_tensor_from_tensor_list(rows)


def _columns(column: torch.Tensor, rotations: int) -> torch.Tensor:
    """The column of each rotation from that of the last: a rotation earlier stands one place later."""
    rows = column.repeat(rotations, 1)
    if rotations > 1:
        later = torch.arange(rotations - 1, -1, -1, device=column.device)
        rows[:, 1] = (column[1] + later) % column[0]
    return rows


def _parts(micro_batch: TensorDict, row: int, length: int, options: int) -> list[int]:
    extra = micro_batch[_EXTRA][row] if _EXTRA in micro_batch.keys() else {}
    extra = getattr(extra, "data", extra)
    parts = [int(part) for part in extra.get(PARTS, ())]
    if sum(parts) != length or len(parts) != options:
        raise RuntimeError(
            f"contextrl: a pair's row has {length} tokens and {options} options, and its parts are {parts}: verl lost "
            "or cut them on the way, and margins cannot be averaged. Fix: contextrl.loss.margin=each; please report it."
        )
    return parts
