"""Scoring passes (old_log_prob, reference) that do not read the contexts of pairs.

verl scores every row before the update. A pair's scores multiply a response mask of zero, so its contexts, often the
longest rows of a batch, would be read twice for nothing. Here a pair's row is its last two tokens while it is scored.
Rows are kept, and not left out, so that every rank and micro-batch has as many as verl divided. Their positions start
at 0, for flash-attention finds the rows of a packed micro-batch by that.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from contextrl_verl.grpo.batch_column import COLUMN, dense, pair_rows
from contextrl_verl.grpo.option_rows import KEPT

_IMAGES = "multi_modal_inputs"


def without_contexts(data: TensorDict) -> tuple[TensorDict, torch.Tensor]:
    """The batch with every pair's row cut to its last two tokens and without images; ``data`` stays as it is.

    Args:
        data: a batch that verl scores: ``input_ids`` (rows, *), ``position_ids`` (rows, *) or (rows, 4, *), jagged.

    Returns:
        The batch, and the rows' lengths before: (rows,) int64.
    """
    ids = data["input_ids"]
    lengths = ids.offsets().diff()
    pairs = set(pair_rows(dense(data[COLUMN]), ids).tolist())
    short = data.copy()
    if not pairs:
        return short, lengths
    for name in ("input_ids", "position_ids"):
        rows = [row[..., -KEPT:] if at in pairs else row for at, row in enumerate(data[name].unbind())]
        if name == "position_ids":
            rows = [row - row[..., :1] if at in pairs else row for at, row in enumerate(rows)]
        short[name] = tu.nested_tensor_from_tensor_list(rows, ragged_idx=data[name].dim() - 1)
    if _IMAGES in data.keys():
        images = [{} if at in pairs else one for at, one in enumerate(data[_IMAGES])]
        tu.assign_non_tensor_stack(short, _IMAGES, images)
    return short, lengths
