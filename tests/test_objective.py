"""L_CA: formula, clip modes, gradient, invariances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contextrl_verl.objective import (
    averaged_margins,
    coefficient,
    confounder_margins,
    context_awareness_loss,
    loss_of_margins,
    mass_loss,
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


def rotated(z: torch.Tensor, order: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Option logits (rotations, contexts) that depend on context and place, and where context 0 stands in each."""
    turns = [order[turn:] + order[:turn] for turn in range(len(order))]
    shown = torch.stack([torch.stack([z[turn, context] for context in turned]) for turn, turned in enumerate(turns)])
    return shown, torch.tensor([turned.index(0) for turned in turns])


@given(st.integers(2, 5), st.randoms(use_true_random=False))
def test_averaged_margins_are_those_of_each_confounder_over_the_rotations(contexts, random):
    order = list(range(contexts))
    random.shuffle(order)
    z = torch.randn(
        contexts, contexts, dtype=torch.float64, generator=torch.Generator().manual_seed(random.randint(0, 999))
    )
    shown, supporting = rotated(z, order)
    found = averaged_margins(shown[None], supporting[None])[0]
    expected = (z[:, :1] - z[:, 1:]).mean(dim=0)
    torch.testing.assert_close(found.sort().values, expected.sort().values)


def test_what_a_place_adds_to_its_logit_leaves_loss_and_gradient_as_they_are():
    z = torch.randn(3, 3, dtype=torch.float64)
    shown, supporting = rotated(z, [2, 0, 1])
    grads = []
    for bias in (torch.zeros(3), torch.tensor([9.0, -4.0, 1.0])):
        logits = (shown + bias).requires_grad_()
        loss = loss_of_margins(averaged_margins(logits[None], supporting[None])).sum()
        grads.append((loss.item(), *torch.autograd.grad(loss, logits)))
    assert grads[0][0] == pytest.approx(grads[1][0], abs=1e-12)
    torch.testing.assert_close(grads[0][1], grads[1][1])
    # Each order by itself is stuck beyond the clip: right in one, wrong in the other, no gradient in either.
    two = torch.tensor([[9.0, 0.0], [9.0, 0.5]], requires_grad=True)
    context_awareness_loss(two, torch.tensor([0, 1])).sum().backward()
    assert not two.grad.any()
    (gradient,) = torch.autograd.grad(loss_of_margins(averaged_margins(two[None], torch.tensor([[0, 1]]))).sum(), two)
    assert gradient.any()


def test_absent_labels_do_not_enter_an_average():
    shown, supporting = rotated(torch.randn(2, 2), [1, 0])
    padded = torch.cat([shown, torch.full((2, 2), -torch.inf)], dim=1)
    torch.testing.assert_close(
        averaged_margins(padded[None], supporting[None]), averaged_margins(shown[None], supporting[None])
    )


def test_mass_loss_is_minus_log_of_the_options_probability():
    full = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    options = torch.cat([full[:, :2], torch.full((4, 1), -torch.inf, dtype=torch.float64)], dim=1)
    expected = -torch.log(full.softmax(1)[:, :2].sum(1))
    torch.testing.assert_close(mass_loss(full, options), expected)
    assert torch.autograd.gradcheck(lambda z: mass_loss(z, z[:, :2]), (full,))


def test_sums_over_rotations():
    # Pair 0 is right by content, and the first place adds 3; pair 1 is wrong by more than the clip in both.
    z = torch.tensor([[4.0, 0.0], [3.0, 1.0], [0.0, 9.0], [9.0, 0.0]])
    supporting = torch.tensor([0, 1, 0, 1])
    losses = loss_of_margins(averaged_margins(z.view(2, 2, 2), supporting.view(2, 2)))
    sums = pair_sums(losses, torch.cat([z, z[:, :1]], dim=1), z, supporting, 5.0, "two_sided", rotations=2)
    assert sums.accuracy == 0.5
    assert sums.order_free_accuracy == 1
    assert sums.margin_mean == (4 - 2) / 2 - 9
    assert sums.clipped_fraction == sums.stuck_fraction == 1
    assert sums.position_logit == (4 + 2 - 9 + 9) / 2
    assert pair_sums(losses, z, z, supporting, 5.0, "one_sided", rotations=2).stuck_fraction == 0
