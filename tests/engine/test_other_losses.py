"""Pairs change none of verl's policy losses: the gradient they add is lambda * mean L_CA's, to 1e-5 of the largest.

With lambda = 0 they add nothing, to 1e-6; whichever loss of verl's registry does not keep to that is refused.
"""

from __future__ import annotations

from pathlib import Path

from ranks import run_ranks
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

from contextrl_verl.grpo.limits import LOSSES


def test_what_pairs_add_to_a_gradient_is_their_own_loss(tmp_path):
    cases = {
        case["loss"]: case
        for case in run_ranks(Path(__file__).with_name("other_losses.py"), 1, str(tmp_path / "model"))
    }
    assert set(POLICY_LOSS_REGISTRY) == set(LOSSES), "decide what pairs do to the new ones"
    assert len(cases) == len(LOSSES) + 9
    refused = {name for name, reason in LOSSES.items() if reason is not None}
    for name, case in cases.items():
        assert case["finite"], case
        assert case["share"] > 0.01, case
        if name not in refused:
            assert case["error"] <= 1e-5, case
            assert case["none"] <= 1e-6, case
            assert case["apart"] <= 1e-6, case
    kept = "need not be refused any more"
    assert cases["geo_mean"]["none"] > 0.1, f"verl's geo_mean leaves rows without tokens out: it {kept}"
    assert "at least one valid token" in str(cases["bypass_mode"]["apart"]), f"bypass_mode {kept}"
    assert refused == {"geo_mean", "bypass_mode"}
