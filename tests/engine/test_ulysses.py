"""Ranks that share a sequence (Ulysses): gradients equal autograd to 1e-5 in fp32, scores are verl's, metrics agree."""

from __future__ import annotations

from pathlib import Path

import flash_attention
import pytest
from ranks import run_ranks

SCRIPT = Path(__file__).with_name("ulysses.py")


# Four processes on two cores, beside the suite's other half, starve whatever starts then.
@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_gradient_equals_autograd_and_ranks_agree(tmp_path, ranks):
    lines = run_ranks(SCRIPT, ranks, str(tmp_path / "model"), attention=flash_attention.NAME)
    cases = [line for line in lines if "case" in line]
    assert len(cases) == (10 if ranks == 2 else 6)
    for case in cases:
        assert case["error"] <= 1e-5, case
        assert case["same"], case
        assert sum(values[0] for values in case["pairs"]) == 8, case
    # Positions of pairs on both halves of a sequence, and micro-batches without any pair.
    assert {owner for case in cases for owner in case["owners"]} == {0, 1}
    assert any(case["without"] for case in cases)
    if ranks == 4:
        return
    scores = [line for line in lines if "scores" in line]
    assert len(scores) == 2
    for case in scores:
        assert case["error"] <= 1e-5, case
        assert case["lengths"], case
    wrong = {line["mutation"]: line for line in lines if "mutation" in line}
    assert set(wrong) == {"no factor", "no gather"}
    assert all(line["error"] > 0.1 for line in wrong.values()), wrong
    # Rows of the wrong rank are other logits than verl scores, and the engine stops in its first mini-batch.
    assert "log-probability of a pair's label" in wrong["no gather"]["stopped"]
    assert wrong["no factor"]["stopped"] is None
