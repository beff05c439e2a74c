"""The int64 column: which rows carry a pair, and which logits are read from them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo.padding_utils import construct_minimal_padding_template

from contextrl_verl.grpo.batch_column import dense, option_logits, ordinary_row, pair_row, pair_rows

VOCABULARY, EOS, LABELS = 50, 0, 4


@st.composite
def rows(draw):
    """A row as the engine gets it: its kind, its column and its token ids."""
    prompt = draw(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=6))
    ids = draw(st.lists(st.integers(1, VOCABULARY - 1), min_size=LABELS, max_size=LABELS, unique=True))
    options = draw(st.integers(2, LABELS))
    supporting = draw(st.integers(0, options - 1))
    kind = draw(st.sampled_from(["ordinary", "pair", "padding"]))
    if kind == "ordinary":
        # Its response may well be an option's token.
        response = draw(st.lists(st.sampled_from([*ids, EOS]), min_size=1, max_size=3))
        return kind, ordinary_row(LABELS), prompt + response
    column = pair_row(ids, options, supporting)
    return kind, column, [*prompt, ids[supporting] if kind == "pair" else EOS]


def jagged(tensors):
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


@given(st.lists(rows(), min_size=1, max_size=12))
def test_a_row_counts_exactly_if_it_is_a_pair_and_no_padding(batch):
    kinds, columns, tokens = zip(*batch, strict=True)
    input_ids = jagged([torch.tensor(ids) for ids in tokens])
    expected = [at for at, kind in enumerate(kinds) if kind == "pair"]
    for column in (torch.stack(columns), jagged(list(columns))):
        flat = dense(column)
        assert torch.equal(flat, torch.stack(columns))
        assert pair_rows(flat, input_ids).tolist() == expected


def test_the_padding_row_that_verl_makes_of_a_pair_is_not_counted():
    column, token = pair_row([7, 8, 9, 10], 2, 1), torch.tensor([8])
    prompts = torch.tensor([3, 4, 5])
    pair = {
        "prompts": prompts,
        "responses": token,
        "input_ids": torch.cat([prompts, token]),
        "position_ids": torch.arange(4),
        "response_mask": torch.zeros(1, dtype=torch.int64),
        "contextrl": column,
    }
    padding, tag = construct_minimal_padding_template(pair, {"seq_len": 4}, EOS)
    assert tag["is_padding"]
    assert torch.equal(padding["contextrl"], column), "verl no longer clones a row: carrier.pair_rows may be simplified"
    both = jagged([pair["input_ids"], padding["input_ids"]])
    assert pair_rows(torch.stack([column, padding["contextrl"]]), both).tolist() == [0]


@given(st.data())
def test_option_logits_are_the_logits_of_the_shown_options_and_minus_infinity_elsewhere(data):
    count = data.draw(st.integers(0, 5))
    logits = torch.randn(count, VOCABULARY, dtype=torch.float64)
    drawn = []
    for _ in range(count):
        ids = data.draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=LABELS, max_size=LABELS, unique=True))
        drawn.append((ids, data.draw(st.integers(2, LABELS))))
    columns = [pair_row(ids, options, options - 1) for ids, options in drawn]
    column = torch.stack(columns) if columns else torch.zeros(0, 2 + LABELS, dtype=torch.int64)
    read = option_logits(logits, column)
    assert read.shape == (count, LABELS)
    for at, (ids, options) in enumerate(drawn):
        expected = [logits[at, token].item() for token in ids[:options]] + [-math.inf] * (LABELS - options)
        assert read[at].tolist() == expected


def test_option_logits_pass_gradients_to_the_shown_options_alone():
    logits = torch.zeros(1, VOCABULARY, requires_grad=True)
    option_logits(logits, pair_row([7, 8, 9], 2, 0)[None])[:, :2].sum().backward()
    assert logits.grad.nonzero().tolist() == [[0, 7], [0, 8]]
    assert torch.isfinite(logits.grad).all()


@given(st.integers(2, 6), st.data())
def test_layout_of_the_column(labels, data):
    ids = data.draw(st.lists(st.integers(0, 10**6), min_size=labels, max_size=labels, unique=True))
    options = data.draw(st.integers(2, labels))
    supporting = data.draw(st.integers(0, options - 1))
    row = pair_row(ids, options, supporting)
    assert row.dtype == ordinary_row(labels).dtype == torch.int64
    assert row.shape == ordinary_row(labels).shape == (2 + labels,)
    assert row.tolist() == [options, supporting, *ids[:options], *[-1] * (labels - options)]
    assert ordinary_row(labels).tolist() == [0, 0, *[-1] * labels]


@pytest.mark.parametrize(("options", "supporting"), [(2, 2), (2, -1), (4, 0)])
def test_impossible_positions_are_refused(options, supporting):
    with pytest.raises(ValueError, match="supporting position"):
        pair_row([7, 8, 9], options, supporting)
