"""Pairs change none of verl's policy losses: the gradient they add is lambda * mean L_CA's, to 1e-5 of the largest."""

from __future__ import annotations

from pathlib import Path

from ranks import run_ranks

from contextrl_verl.limits import LOSSES_OVER_ROWS


def test_what_pairs_add_to_a_gradient_is_their_own_loss(tmp_path):
    cases = {
        case["loss"]: case
        for case in run_ranks(Path(__file__).with_name("other_losses.py"), 1, str(tmp_path / "model"))
    }
    assert len(cases) == 20
    for name, case in cases.items():
        assert case["finite"], case
        assert case["share"] > 0.01, case
        if name in LOSSES_OVER_ROWS:
            assert case["error"] > 1e-3, f"verl's {name} leaves rows without tokens out now: it need not be refused"
        else:
            assert case["error"] <= 1e-5, case
