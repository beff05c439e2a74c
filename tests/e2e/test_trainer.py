"""verl's own trainer, Ray, FSDP2 and vLLM for four steps: straight through, and killed half way and resumed."""

from __future__ import annotations

from collections import Counter

import pytest
from small_job import HELD_OUT, PAIRS, ROLLOUTS, ROWS, STEPS, job_keys, rows_of_step, write_data

from contextrl_verl.launch import run_trainer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

METRICS = (
    "loss accuracy order_free_accuracy margin_mean clipped_fraction stuck_fraction option_mass position_bias "
    "position_logit pairs coef zero_grpo_gradient"
).split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight")
    history = run_trainer(job_keys(data, out), out, timeout=900)
    return out, [metrics for step, metrics in history if "actor/contextrl/loss" in metrics], history


def test_every_step_reports_every_metric(straight):
    _, steps, _ = straight
    assert len(steps) == STEPS
    for metrics in steps:
        assert {f"actor/contextrl/{name}" for name in METRICS} <= set(metrics)
        # Means over the two mini-batches of a step.
        assert metrics["actor/contextrl/pairs"] == PAIRS / 2
        assert 0 < metrics["actor/contextrl/loss"] < 10
        assert 0 <= metrics["actor/contextrl/accuracy"] <= 1
        assert metrics["actor/grad_norm"] > 0


def test_lambda_follows_its_schedule(straight):
    _, steps, _ = straight
    # The engine learns the step from the rows; 0.5 is reached at the last one.
    assert [metrics["actor/contextrl/coef"] for metrics in steps] == pytest.approx([0.125, 0.25, 0.375, 0.5])


def test_rollout_and_trainer_agree_on_the_ordinary_rows(straight):
    _, steps, _ = straight
    for metrics in steps:
        assert metrics["training/rollout_probs_diff_max"] < 1e-3


# Engine, data set and agent loop are tested for it by themselves.
@pytest.mark.slow
def test_two_steps_with_averaged_margins(data, tmp_path):
    keys = job_keys(data, tmp_path) | {
        "contextrl.loss.margin": "averaged",
        "contextrl.loss.mass_coef": 0.1,
        "contextrl.pairs.orders": "both",
        "trainer.total_training_steps": 2,
        "trainer.test_freq": 2,
        "trainer.save_freq": -1,
    }
    history = run_trainer(keys, tmp_path, timeout=900)
    steps = [metrics for _, metrics in history if "actor/contextrl/loss" in metrics]
    assert len(steps) == 2
    for metrics in steps:
        # Two mini-batches; a pair is one row in both of its orders, and verl scores and counts it as that.
        assert metrics["actor/contextrl/pairs"] == PAIRS / 2
        assert 0 < metrics["actor/contextrl/loss"] < 6
        assert metrics["training/rollout_probs_diff_max"] < 1e-3
        twice = metrics["actor/contextrl/accuracy"] * 2 * PAIRS
        assert twice == pytest.approx(round(twice), abs=1e-4)
        assert 0 <= metrics["actor/contextrl/order_free_accuracy"] <= 1
    for step in (1, 2):
        rows = rows_of_step(tmp_path, step)
        assert sum(row.count("which? A or B") == 2 for row in rows) == PAIRS
        assert len(rows) == PAIRS + ROWS * ROLLOUTS
    assert 0 <= history[-1][1]["val-core/contextrl/selection/acc/mean@1"] <= 1


def test_every_batch_holds_its_rows_and_pairs(straight):
    out, _, _ = straight
    seen = Counter()
    for step in range(1, STEPS + 1):
        rows = rows_of_step(out, step)
        pairs = [row for row in rows if "which? A or B" in row]
        assert len(pairs) == PAIRS
        assert sorted(Counter(row for row in rows if row not in pairs).values()) == [ROLLOUTS] * ROWS
        seen.update(pairs)
    assert max(seen.values()) == 1


def test_validation_asks_every_held_out_pair_in_both_orders(straight):
    _, _, history = straight
    accuracy = history[-1][1]["val-core/contextrl/selection/acc/mean@1"]
    assert 0 <= accuracy <= 1
    assert accuracy * 2 * HELD_OUT == pytest.approx(round(accuracy * 2 * HELD_OUT))


# What the data set restores is tested with verl's own loader in tests/test_dataset_resume.py.
@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_rows(data, straight, tmp_path):
    whole, _, _ = straight
    keys = job_keys(data, tmp_path)
    before = run_trainer(keys, tmp_path, stop=lambda step: step >= 3, timeout=900)
    assert max(step for step, _ in before) == 3
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text().strip() == "2"
    for step in (1, 2):
        assert rows_of_step(tmp_path, step) == rows_of_step(whole, step)
    for file in (tmp_path / "rollouts").iterdir():
        file.unlink()

    after = run_trainer(keys, tmp_path, timeout=900)
    assert [step for step, metrics in after if "actor/contextrl/loss" in metrics] == [3, 4]
    for step in (3, 4):
        assert rows_of_step(tmp_path, step) == rows_of_step(whole, step)
    coefs = [metrics["actor/contextrl/coef"] for _, metrics in after if "actor/contextrl/coef" in metrics]
    assert coefs == pytest.approx([0.375, 0.5])
