"""Positions of pairs in packed and padded rows, who holds them under Ulysses, what of the rows the output head sees."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contextrl_verl.grpo.option_rows import (
    KEPT,
    OptionRows,
    kept_positions,
    label_mismatch,
    last_tokens,
    on_rank,
    option_positions,
    with_lengths,
)

ROWS = st.lists(st.tuples(st.integers(2, 30), st.booleans()), min_size=1, max_size=8)


def laid_out(rows):
    """Offsets, indices of pairs, and jagged ids that tell row and position."""
    offsets = torch.tensor([0, *torch.tensor([length for length, _ in rows]).cumsum(0).tolist()])
    ids = [torch.arange(length) + 100 * number for number, (length, _) in enumerate(rows)]
    pairs = torch.tensor([number for number, (_, pair) in enumerate(rows) if pair], dtype=torch.int64)
    return offsets, pairs, torch.nested.as_nested_tensor(ids, layout=torch.jagged)


@given(ROWS)
def test_kept_positions_are_all_of_ordinary_rows_and_the_last_two_of_pairs(rows):
    offsets, pairs, ids = laid_out(rows)
    positions, left = kept_positions(offsets, pairs)
    expected = [row[-KEPT:] if pair else row for row, (_, pair) in zip(ids.unbind(), rows, strict=True)]
    assert ids.values()[positions].tolist() == torch.cat(expected).tolist()
    assert left.tolist() == [len(row) for row in expected]
    assert positions.tolist() == sorted(set(positions.tolist()))
    short = last_tokens(ids, left)
    assert short.values().tolist() == ids.values()[positions].tolist()
    # The label's position among those kept is the same token as among all.
    among = option_positions(torch.nn.functional.pad(left.cumsum(0), (1, 0)), pairs, packed=True)[1]
    assert short.values()[among].tolist() == ids.values()[option_positions(offsets, pairs, packed=True)[1]].tolist()


@given(ROWS)
def test_rows_get_their_lengths_back(rows):
    offsets, pairs, ids = laid_out(rows)
    _, left = kept_positions(offsets, pairs)
    whole = with_lengths(last_tokens(ids + 1, left), offsets.diff())
    for row, back, (_, pair) in zip((ids + 1).unbind(), whole.unbind(), rows, strict=True):
        assert len(back) == len(row)
        kept = KEPT if pair else len(row)
        assert back[-kept:].tolist() == row[-kept:].tolist()
        assert not back[:-kept].any()


@given(ROWS)
def test_packed_and_padded_positions_are_the_same_token(rows):
    offsets, pairs, ids = laid_out(rows)
    padded = torch.nested.to_padded_tensor(ids, padding=-1)
    packed = ids.values()[None]
    one = packed[option_positions(offsets, pairs, packed=True)]
    two = padded[option_positions(offsets, pairs, packed=False)]
    assert one.tolist() == two.tolist()
    assert (one % 100).tolist() == [length - KEPT for length, pair in rows if pair]


@given(st.integers(1, 8), st.integers(1, 40), st.data())
def test_every_position_has_one_owner_that_holds_it(ranks, share, data):
    tokens = ranks * share
    positions = torch.tensor(data.draw(st.lists(st.integers(0, tokens - 1), max_size=10)), dtype=torch.int64)
    whole = torch.arange(tokens)
    for rank in range(ranks):
        owner, here = on_rank(positions, tokens, ranks, rank)
        mine = whole[rank * share : (rank + 1) * share][here]
        assert mine[owner == rank].tolist() == positions[owner == rank].tolist()
    assert ((owner >= 0) & (owner < ranks)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_label_is_compared_in_the_precision_of_its_logits(dtype):
    g = torch.Generator().manual_seed(0)
    rows, labels = (10 * torch.randn(4, 50, generator=g)).to(dtype), torch.tensor([1, 2, 3, 4])
    scored = torch.log_softmax(rows.float() / 0.7, -1).gather(1, labels[:, None])[:, 0]
    assert label_mismatch(rows, labels, 0.7, scored) is None
    assert label_mismatch(rows, labels, torch.full((4,), 0.7), scored) is None
    # A rounding of bf16 is no mismatch there; in fp32 it is.
    rounded = label_mismatch(rows, labels, 0.7, scored + 0.05)
    assert (rounded is None) == (dtype is torch.bfloat16)
    other = label_mismatch(rows, labels.roll(1), 0.7, scored)
    assert "the log-probability of a pair's label is" in other
    assert label_mismatch(rows, labels, 0.7, scored * torch.nan) is not None
    assert label_mismatch(rows[:0], labels[:0], 0.7, scored[:0]) is None


def test_a_model_without_a_decoder_of_its_own_is_left_alone():
    from transformers import Qwen2Config, Qwen2Model

    config = Qwen2Config(
        vocab_size=9,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model, rows = Qwen2Model(config), OptionRows()
    forward = model.forward
    rows.attach(model)
    assert not rows.attached
    assert model.forward == forward
