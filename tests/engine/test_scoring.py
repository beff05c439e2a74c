"""Scoring passes do not read the contexts of pairs, and score ordinary rows as verl's own engine does (<= 1e-5)."""

from __future__ import annotations

from pathlib import Path

import flash_attention
import pytest
from ranks import run_ranks

SCRIPT = Path(__file__).with_name("scoring.py")


@pytest.mark.parametrize(
    ("attention", "ranks"), [pytest.param("sdpa", 1, marks=pytest.mark.slow), (flash_attention.NAME, 2)]
)
@pytest.mark.parametrize("family", [None, "qwen2_5_vl", "qwen3_vl"])
def test_pairs_enter_as_two_tokens_and_nothing_else_changes(tmp_path, family, attention, ranks):
    lines = run_ranks(SCRIPT, ranks, str(tmp_path / "model"), *([family] if family else []), attention=attention)
    cases = [line for line in lines if "case" in line]
    assert len(cases) == (2 if family == "qwen2_5_vl" and attention == "sdpa" else 4)
    for case in cases:
        assert case["error"] <= 1e-5, case
        assert case["lengths"], case
        ours, whole = case["forwarded"]
        if case["packed"]:  # else padding counts, and two tokens stand among long rows
            assert ours == case["expected"] < whole, case
        assert case["images"][0] == case["expected_images"], case
        if family:
            assert case["images"][0] < case["images"][1], case
    beside = [line for line in lines if "beside" in line]
    assert len(beside) == (0 if family else 3)
    for case in beside:
        assert "failed" not in case, case
        assert case["finite"], case
        assert case["error"] <= 1e-5, case
