"""L_CA: formula, clip modes, gradient, invariances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contextrl_verl.objective import (
    coefficient,
    confounder_margins,
    context_awareness_loss,
    pair_sums,
)

logits = st.floats(-30, 30, allow_nan=False, width=32)


@given(st.lists(st.tuples(logits, logits, st.integers(0, 1)), min_size=1, max_size=8), st.floats(0.5, 10))
@settings(deadline=None)
def test_two_options_is_minus_log_sigmoid_of_the_clipped_margin(rows, clip):
    z = torch.tensor([[a, b] for a, b, _ in rows], dtype=torch.float64)
    supporting = torch.tensor([s for *_, s in rows])
    margin = torch.where(supporting == 0, z[:, 0] - z[:, 1], z[:, 1] - z[:, 0])
    expected = -torch.nn.functional.logsigmoid(margin.clamp(-clip, clip))
    torch.testing.assert_close(context_awareness_loss(z, supporting, clip), expected, rtol=1e-12, atol=1e-12)


def test_wide_clip_is_softmax_cross_entropy():
    z = torch.randn(16, 5, dtype=torch.float64)
    supporting = torch.randint(0, 5, (16,))
    expected = torch.nn.functional.cross_entropy(z, supporting, reduction="none")
    torch.testing.assert_close(context_awareness_loss(z, supporting, clip=1e6), expected, rtol=1e-12, atol=1e-12)


def test_absent_options_change_nothing():
    z = torch.randn(6, 2, dtype=torch.float64)
    padded = torch.cat([z, torch.full((6, 2), -torch.inf, dtype=torch.float64)], dim=1).requires_grad_()
    supporting = torch.tensor([0, 1, 0, 1, 0, 1])
    losses = context_awareness_loss(padded, supporting)
    torch.testing.assert_close(losses, context_awareness_loss(z, supporting))
    losses.sum().backward()
    assert torch.isfinite(padded.grad).all()
    assert (padded.grad[:, 2:] == 0).all()


@pytest.mark.parametrize(
    ("mode", "wrong_by_nine"), [("two_sided", 0.0), ("one_sided", -torch.sigmoid(torch.tensor(9.0)))]
)
def test_gradient_inside_and_outside_the_clip(mode, wrong_by_nine):
    z = torch.tensor([[1.0, 0.5], [9.0, 0.0], [0.0, 9.0]], requires_grad=True)
    context_awareness_loss(z, torch.zeros(3, dtype=torch.int64), clip=5.0, mode=mode).sum().backward()
    inside, right, wrong = z.grad[:, 0]
    torch.testing.assert_close(inside, -torch.sigmoid(torch.tensor(-0.5)))
    assert right == 0
    torch.testing.assert_close(wrong, torch.as_tensor(wrong_by_nine))


def test_gradcheck():
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    supporting = torch.tensor([0, 1, 2, 0, 1])
    for mode in ("two_sided", "one_sided"):
        assert torch.autograd.gradcheck(lambda t, mode=mode: context_awareness_loss(t, supporting, 3.0, mode), (z,))


def test_order_of_options_does_not_matter():
    z = torch.randn(9, 4)
    supporting = torch.randint(0, 4, (9,))
    swap = torch.randperm(4)
    where = torch.argsort(swap)[supporting]
    torch.testing.assert_close(context_awareness_loss(z[:, swap], where), context_awareness_loss(z, supporting))


def test_margins_name_every_confounder_in_order():
    z = torch.tensor([[1.0, 2.0, 4.0]])
    assert confounder_margins(z, torch.tensor([1])).tolist() == [[1.0, -2.0]]


def test_sums():
    z = torch.tensor([[2.0, 0.0], [0.0, 1.0], [7.0, 0.0]])
    full = torch.cat([z, torch.full((3, 1), 0.0)], dim=1)
    supporting = torch.tensor([0, 0, 1])
    losses = context_awareness_loss(z, supporting)
    sums = pair_sums(losses, full, z, supporting, clip=5.0)
    assert sums.accuracy == 1
    assert sums.clipped_fraction == 1
    assert sums.margin_mean == 2 - 1 - 7
    # First is chosen in rows 0 and 2, and supports in rows 0 and 1.
    assert sums.position_bias == 0
    torch.testing.assert_close(sums.option_mass, (full.softmax(1)[:, :2]).sum())


def test_schedule_is_a_function_of_the_step():
    assert coefficient(0.01, 7) == 0.01
    assert [coefficient(1.0, s, "linear_warmup", 4) for s in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]
    with pytest.raises(ValueError, match="cosine"):
        coefficient(1.0, 1, "cosine")
