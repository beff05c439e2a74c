"""verl's fused kernels, and what else users of long rows have on: gradients equal autograd to 1e-5 in fp32."""

from __future__ import annotations

from pathlib import Path

import flash_attention
import pytest
from ranks import run_ranks

SCRIPT = Path(__file__).with_name("fused_kernels.py")


@pytest.mark.parametrize(
    ("attention", "ranks", "extent"),
    [
        (flash_attention.NAME, 2, "half"),
        pytest.param(flash_attention.NAME, 2, "all", marks=pytest.mark.slow),
        pytest.param("sdpa", 1, "all", marks=pytest.mark.slow),
    ],
)
def test_gradient_equals_autograd(tmp_path, attention, ranks, extent):
    *cases, tied, untied, alone = run_ranks(SCRIPT, ranks, str(tmp_path / "model"), extent, attention=attention)
    assert len(cases) == (2 * (2 * 2 + 1 + 2) + 1 + 2 * 7 if extent == "all" else 4 + 2 + 3 + 1 + 7)
    for case in cases:
        assert case["error"] <= 1e-5, case
        assert sum(values[0] for values in case["pairs"]) == 8, case
    for case in (tied, untied):
        assert case["error"] <= 1e-5, case
    assert "mixed torch.Tensor and DTensor" in alone.get("stopped", ""), (
        f"verl computes an untied head by itself now ({alone}): contextrl_verl/grpo/fused_head.py may do without "
        "head_in_root_unit (verl#7520)"
    )
