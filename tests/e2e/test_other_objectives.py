"""The two arms beside context awareness run through the same trainer: pairs as ordinary prompts, and no pairs."""

from __future__ import annotations

import json

import pytest
from small_job import PAIRS, ROLLOUTS, ROWS, job_keys, write_data

from contextrl_verl.demo.job import run_trainer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def run(tmp_path, **changes):
    write_data(tmp_path)
    keys = job_keys(tmp_path, tmp_path) | {
        "trainer.total_training_steps": 2,
        "trainer.test_freq": 2,
        "trainer.save_freq": -1,
        "trainer.resume_mode": "disable",
        **changes,
    }
    history = run_trainer(keys, tmp_path, timeout=900)
    steps = [metrics for _, metrics in history if "actor/pg_loss" in metrics]
    assert len(steps) == 2
    assert not [name for name in steps[0] if "contextrl/" in name and name.startswith("actor/")]
    files = [tmp_path / "rollouts" / f"{step}.jsonl" for step in (1, 2)]
    return history, [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_selection_reward_samples_and_scores_the_pairs(tmp_path):
    changes = {
        "contextrl.objective": "selection_reward",
        "actor_rollout_ref.actor.ppo_mini_batch_size": ROWS + PAIRS,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 16,
    }
    history, dumps = run(tmp_path, **changes)
    for rows in dumps:
        asked = [row for row in rows if "which? A or B" in row["input"]]
        assert len(asked) == PAIRS * ROLLOUTS
        assert len(rows) == (PAIRS + ROWS) * ROLLOUTS
        for row in asked:
            # A random model hardly ever names an option; where it does, the reward is the strict parser's.
            assert row["score"] in (0.0, 1.0)
            assert row["score"] == 0.0 or row["gts"] in row["output"]
    assert "val-core/contextrl/selection/acc/mean@1" in history[-1][1]


@pytest.mark.slow
def test_none_trains_on_the_ordinary_rows_alone(tmp_path):
    changes = {
        "contextrl.objective": "none",
        "data.train_batch_size": ROWS,
        "actor_rollout_ref.actor.ppo_mini_batch_size": ROWS,
    }
    history, dumps = run(tmp_path, **changes)
    for rows in dumps:
        assert len(rows) == ROWS * ROLLOUTS
        assert not [row for row in rows if "which? A or B" in row["input"]]
    # The baseline is asked the same held-out pairs.
    assert "val-core/contextrl/selection/acc/mean@1" in history[-1][1]


@pytest.mark.slow
def test_question_answering_trains_on_the_pairs_as_questions(tmp_path):
    changes = {
        "contextrl.objective": "question_answering",
        "actor_rollout_ref.actor.ppo_mini_batch_size": ROWS + PAIRS,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 16,
    }
    history, dumps = run(tmp_path, **changes)
    for rows in dumps:
        asked = [row for row in rows if "Answer the question from the context." in row["input"]]
        assert len(asked) == PAIRS * ROLLOUTS
        assert len(rows) == (PAIRS + ROWS) * ROLLOUTS
        assert not [row for row in rows if "which? A or B" in row["input"]]
    # The held-out pairs are asked as in every arm.
    assert "val-core/contextrl/selection/acc/mean@1" in history[-1][1]
