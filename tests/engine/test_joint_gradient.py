"""One optimiser step's gradient equals autograd of L_GRPO + lambda * mean(L_CA): relative error <= 1e-5 in fp32."""

from __future__ import annotations

from pathlib import Path

import flash_attention
import pytest
from ranks import run_ranks

SCRIPT = Path(__file__).with_name("joint_gradient.py")


@pytest.mark.parametrize(
    ("attention", "ranks", "share"),
    [
        ("sdpa", 1, 2),
        (flash_attention.NAME, 2, 2),
        *(pytest.param(attention, 2, 1, marks=pytest.mark.slow) for attention in ("sdpa", flash_attention.NAME)),
    ],
)
def test_gradient_equals_autograd(tmp_path, attention, ranks, share):
    cases = run_ranks(SCRIPT, ranks, str(tmp_path / "model"), *["all"] * (share == 1), attention=attention)
    assert len(cases) == 3 * 2 * 3 // share
    wrong = [case for case in cases if not case["error"] <= 1e-5]
    assert not wrong, wrong
    # Every mini-batch knows the pairs of all ranks; together they are the eight of the batch.
    for case in cases:
        assert sum(values[0] for values in case["pairs"]) == 8, case
        if case["packed"]:  # padded, the head sees whole rows
            assert case["head"] == case["kept"], case
