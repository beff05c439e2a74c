"""Margins averaged over all rotations of a pair, and the weight of the labels' mass: autograd's gradient to 1e-5."""

from __future__ import annotations

from pathlib import Path

import flash_attention
import pytest
from ranks import run_ranks

SCRIPT = Path(__file__).with_name("averaged_margin.py")


@pytest.mark.parametrize(
    ("attention", "ranks", "extent"),
    [
        (flash_attention.NAME, 2, "half"),
        pytest.param(flash_attention.NAME, 2, "all", marks=pytest.mark.slow),
        pytest.param("sdpa", 1, "all", marks=pytest.mark.slow),
    ],
)
def test_gradient_equals_autograd(tmp_path, attention, ranks, extent):
    lines = run_ranks(SCRIPT, ranks, str(tmp_path / "model"), extent, attention=attention)
    cases = [line for line in lines if "case" in line]
    each = 2 if extent == "all" else 1
    assert len(cases) == each * 6 + 2 + each * 2 * (ranks == 2)
    for case in cases:
        assert case["error"] <= 1e-5, case
        # A pair is one, in however many orders it is shown.
        assert sum(values[0] for values in case["pairs"]) == 8, case
    (mutation,) = (line for line in lines if "mutation" in line)
    assert mutation["error"] > 0.1
