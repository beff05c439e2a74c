"""Without pairs our engine is verl's, bit for bit; with lambda = 0 pairs change nothing but the order of sums."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run_ranks

SCRIPT = Path(__file__).with_name("plain_verl.py")


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_weights_equal_plain_verl(tmp_path, ranks):
    *cases, complete, short, foreign = run_ranks(SCRIPT, ranks, str(tmp_path / "model"))
    assert len(cases) == (3 * 2 + 2) * 3
    for case in cases:
        if case["case"].startswith("coef 0"):
            assert case["relative"] <= 1e-6, case
            # Adam divides by the gradient's own size, so rounding shows where gradients are nearly zero.
            assert case["of_change"] <= 1e-3, case
        else:
            assert case["bitwise"], case
    # A step that lost a pair on the way stops the job; one that has them all does not.
    assert complete["said"] == ""
    assert "held 8 pairs instead of 9" in short["said"]
    # So does a batch of a data set that knows no pairs, where the job asked for some.
    assert "its rows do not come from contextrl_verl.grpo.dataset.MixedTaskDataset" in foreign["said"]
