"""Rows that hold a pair in all rotations, taken apart for the model."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from contextrl_verl.grpo.batch_column import COLUMN, dense, ordinary_row, pair_row, pair_rows
from contextrl_verl.grpo.model_rows import taken_apart

IDS = [11, 12, 13]


def batch(vision: bool = False, parts: tuple[int, ...] = (4, 3, 5)) -> TensorDict:
    """An ordinary row, a pair of three contexts in all rotations, another ordinary row. The pair's last label is B."""
    pair = torch.tensor([1, 2, 3, IDS[0], 4, 5, IDS[2], 6, 7, 8, 9, IDS[1]])
    rows = [torch.arange(20, 25), pair, torch.arange(30, 33)]
    positions = [torch.arange(len(row)) for row in rows]
    if vision:
        positions = [torch.stack([row, 2 * row, row, row]) for row in positions]
    data = TensorDict(
        {
            "input_ids": torch.nested.as_nested_tensor(rows, layout=torch.jagged),
            "position_ids": tu.nested_tensor_from_tensor_list(positions, ragged_idx=positions[0].dim()),
            "advantages": torch.nested.as_nested_tensor([row[:1] for row in rows], layout=torch.jagged),
            COLUMN: torch.stack([ordinary_row(3), pair_row(IDS, 3, 1), ordinary_row(3)]),
        },
        batch_size=3,
    )
    tu.assign_non_tensor_stack(data, "extra_fields", [{}, {"contextrl_parts": list(parts)}, {}])
    tu.assign_non_tensor_stack(data, "multi_modal_inputs", [{}, {"pixel_values": torch.ones(6, 2)}, {}])
    tu.assign_non_tensor(data, temperature=0.7, use_remove_padding=True)
    return data


def test_each_rotation_is_a_row_that_carries_the_pair_with_its_own_place():
    whole = batch()
    apart = taken_apart(whole)
    rows = [row.tolist() for row in apart["input_ids"].unbind()]
    assert rows == [[20, 21, 22, 23, 24], [1, 2, 3, 11], [4, 5, 13], [6, 7, 8, 9, 12], [30, 31, 32]]
    # The labels at the ends are A, C, B: the supporting context moves one place to the front each time, in a circle.
    assert dense(apart[COLUMN])[:, 1].tolist() == [0, 0, 2, 1, 0]
    assert pair_rows(dense(apart[COLUMN]), apart["input_ids"]).tolist() == [1, 2, 3]
    assert apart["input_ids"].values().tolist() == whole["input_ids"].values().tolist()
    assert tu.get_non_tensor_data(apart, "temperature", None) == 0.7
    images = [getattr(one, "data", one) for one in apart["multi_modal_inputs"]]
    assert [len(one) for one in images] == [0, 1, 0, 0, 0]
    assert whole["input_ids"].size(0) == 3


@pytest.mark.parametrize("vision", [False, True])
def test_positions_of_every_row_start_at_zero(vision):
    apart = taken_apart(batch(vision))
    for ids, row in zip(apart["input_ids"].unbind(), apart["position_ids"].unbind(), strict=True):
        assert row.shape[-1] == len(ids)
        assert not row[..., 0].any()
        assert row[..., 0, :].tolist() == list(range(len(ids))) if vision else row.tolist() == list(range(len(ids)))


@pytest.mark.parametrize("parts", [(4, 3), (4, 3, 4), ()])
def test_parts_that_do_not_add_up_stop_the_job(parts):
    with pytest.raises(
        RuntimeError, match=r"12 tokens and 3 options, and its parts are .* Fix: contextrl.loss.margin=each"
    ):
        taken_apart(batch(parts=parts))


def test_verls_filler_row_is_no_pair_and_stays_whole():
    filler = batch()
    filler["input_ids"] = torch.nested.as_nested_tensor(
        [row if len(row) != 12 else torch.tensor([0, 0]) for row in filler["input_ids"].unbind()], layout=torch.jagged
    )
    filler["position_ids"] = torch.nested.as_nested_tensor(
        [torch.arange(len(row)) for row in filler["input_ids"].unbind()], layout=torch.jagged
    )
    assert taken_apart(filler)["input_ids"].size(0) == 3
