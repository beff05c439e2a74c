"""The int64 column that carries a pair's option tokens from the data set to the engine.

Every row of a batch has it, ordinary rows too: TransferQueue drops a field that some row lacks.
Layout, width 2 + number of labels: options of this pair (0 on an ordinary row), position of the
supporting option, then the option token ids in shown order (-1 where absent).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

COLUMN = "contextrl"
# The agent loops, by the names under which verl knows them.
CARRIER = "contextrl_pair"
ANSWER = "contextrl_answer"
REPLY = "contextrl_reply"
# In a pair's extra_info: the messages of its further rotations. In its row's extra_fields: how many tokens each of its
# rotations takes, its label included.
OTHER_ORDERS = "contextrl_other_orders"
PARTS = "contextrl_parts"


def ordinary_row(labels: int) -> torch.Tensor:
    """The column of an ordinary row: (2 + labels,) int64."""
    return torch.tensor([0, 0, *([-1] * labels)], dtype=torch.int64)


def pair_row(option_ids: Sequence[int], options: int, supporting: int) -> torch.Tensor:
    """The column of a pair with ``options`` contexts whose supporting one is shown at ``supporting``."""
    if not 0 <= supporting < options <= len(option_ids):
        raise ValueError(f"supporting position {supporting} of {options} options and {len(option_ids)} labels")
    ids = list(option_ids[:options]) + [-1] * (len(option_ids) - options)
    return torch.tensor([options, supporting, *ids], dtype=torch.int64)


def dense(column: torch.Tensor) -> torch.Tensor:
    """(rows, width) from a dense or jagged column (TransferQueue returns fixed-shape columns jagged)."""
    if not column.is_nested:
        return column
    return column.values().view(column.size(0), -1)


def pair_rows(column: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Indices of the rows that carry a pair: (pairs,) int64.

    verl fills up batches with clones of the first row, custom columns included, whose response is the
    end-of-sequence token. A row counts only if its last token is its supporting option's token.

    Args:
        column: (rows, width) from :func:`dense`.
        input_ids: jagged (rows, *) int64.
    """
    last = input_ids.values()[input_ids.offsets()[1:] - 1]
    expected = column.gather(1, 2 + column[:, 1:2])[:, 0]
    return ((column[:, 0] > 0) & (last == expected)).nonzero()[:, 0]


def option_logits(rows: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Logits of each pair's options: (pairs, labels), -inf where a pair has fewer options.

    Args:
        rows: (pairs, vocabulary) next-token logits.
        column: (pairs, width).
    """
    ids = column[:, 2:]
    return rows.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, -torch.inf)
