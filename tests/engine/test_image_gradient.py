"""The gradient check of test_joint_gradient.py with image pairs: relative error <= 1e-5 in fp32, tower included."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run_ranks

from contextrl_verl.smoke.vision_models import FAMILIES

SCRIPT = Path(__file__).with_name("image_gradient.py")


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_with_image_pairs_equals_autograd(tmp_path, family, ranks):
    cases = run_ranks(SCRIPT, ranks, str(tmp_path / "model"), family)
    assert len(cases) == (4 if family == "qwen3_vl" else 3)
    wrong = [case for case in cases if not case["error"] <= 1e-5]
    assert not wrong, wrong
    for case in cases:
        assert sum(values[0] for values in case["pairs"]) == 8, case
        assert case["tower"] > 0, "no gradient reached the vision tower"
