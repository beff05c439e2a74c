"""Context awareness on image pairs through verl's own trainer and vLLM: agreement, learning, held-out pairs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from image_job import HELD_OUT, PAIRS, ROLLOUTS, ROWS, STEPS, job_keys, write_data

from contextrl_verl.launch import run_trainer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


@pytest.fixture(
    scope="module", params=["qwen2_5_vl", pytest.param("qwen3_vl", marks=pytest.mark.slow)], ids=["2.5", "3"]
)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_data(folder, request.param)
    tests = Path(__file__).parent
    path = os.pathsep.join(filter(None, [str(tests), os.environ.get("PYTHONPATH", "")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.setenv("CONTEXTRL_TEST_PROBE", str(folder / "probe.jsonl"))
        history = run_trainer(job_keys(folder, folder), folder, timeout=900)
    steps = [metrics for _, metrics in history if "actor/contextrl/loss" in metrics]
    assert len(steps) == STEPS
    return folder, steps, history


def test_rollout_and_trainer_agree_on_image_rows_and_text_rows(run):
    folder, _, _ = run
    batches = [json.loads(line) for line in (folder / "probe.jsonl").read_text().splitlines()]
    assert len(batches) == STEPS
    for batch in batches:
        # The rows come shuffled; in all, half of them show images, the same images again and again.
        assert len(batch["image"]) + len(batch["text"]) == ROWS * ROLLOUTS
        assert max(batch["image"] + batch["text"]) < 1e-3
    assert sum(len(batch["image"]) for batch in batches) == STEPS * ROWS * ROLLOUTS / 2


def test_the_pair_loss_falls_and_the_tower_is_what_learns(run):
    _, steps, _ = run
    losses = [metrics["actor/contextrl/loss"] for metrics in steps]
    assert all(metrics["actor/contextrl/pairs"] == PAIRS for metrics in steps)
    assert losses[-1] < losses[0] / 2
    # Both orders of every pair are in the batch, so only a model that sees the images gets below log 2.
    assert losses[-1] < 0.5


def test_held_out_image_pairs_are_asked_in_both_orders(run):
    _, _, history = run
    key = "val-core/contextrl/selection/acc/mean@1"
    first, last = (metrics[key] for _, metrics in history if key in metrics)
    for accuracy in (first, last):
        assert accuracy * 2 * HELD_OUT == pytest.approx(round(accuracy * 2 * HELD_OUT))
    assert last > first
    assert last >= 0.75


def test_every_step_trained_on_rows_with_and_without_images(run):
    folder, _, _ = run
    for step in range(1, STEPS + 1):
        rows = [json.loads(line) for line in (folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        assert len(rows) == ROWS * ROLLOUTS + PAIRS
        assert sum("which? A or B" in row["input"] for row in rows) == PAIRS
