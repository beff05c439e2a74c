"""The gradient check of test_joint_gradient.py with image pairs: relative error <= 1e-5 in fp32, tower included."""

from __future__ import annotations

from pathlib import Path

import flash_attention
import pytest
from ranks import run_ranks

from contextrl_verl.demo.tiny_vision import FAMILIES

SCRIPT = Path(__file__).with_name("image_gradient.py")


@pytest.mark.parametrize(
    ("attention", "ranks"), [pytest.param("sdpa", 1, marks=pytest.mark.slow), (flash_attention.NAME, 2)]
)
@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=[] if one == "qwen3_vl" else pytest.mark.slow) for one in FAMILIES]
)
def test_gradient_with_image_pairs_equals_autograd(tmp_path, family, attention, ranks):
    lines = run_ranks(SCRIPT, ranks, str(tmp_path / "model"), family, attention=attention)
    cases = [line for line in lines if "case" in line]
    # Padded; packed, where the family can without flash-attn; two ranks that share a sequence; averaged margins.
    assert len(cases) == 1 + 3 + 2 * (family == "qwen3_vl" or attention != "sdpa") + 2 * (ranks == 2)
    wrong = [case for case in cases if not case["error"] <= 1e-5]
    assert not wrong, wrong
    for case in cases:
        assert sum(values[0] for values in case["pairs"]) == 8, case
        assert case["tower"] > 0, "no gradient reached the vision tower"
    if family == "qwen3_vl":
        error = {line["head"]: line["error"] for line in lines if "head" in line}
        assert error["ours"] <= 1e-5
        if ranks == 2:
            assert error["verl"] > 0.01, "verl reduces the head's gradient now: see contextrl_verl/grpo/fused_head.py"
