"""A job of a few steps: four ordinary rows and sixteen pairs a batch, on a model of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from contextrl_verl.demo.evidence_pairs import DATA_SOURCE, evidence_pairs
from contextrl_verl.demo.tiny_model import make_model, make_tokenizer
from contextrl_verl.pairs.files import write_pairs

STEPS, ROWS, PAIRS, ROLLOUTS = 4, 4, 16, 4
QUESTIONS, HELD_OUT = 24, 6


def write_data(folder: Path, questions: int = QUESTIONS) -> None:
    """The model and four files; every ordinary prompt is different, so that a prompt identifies its row."""
    make_model(folder / "model", make_tokenizer())
    for split, count in (("train", 200), ("heldout", HELD_OUT)):
        write_pairs(evidence_pairs(count, 1, split), folder / f"{split}_pairs.parquet")
    for name, first, count in (("train", 0, questions), ("heldout", questions, 4)):
        asked = [
            {
                "data_source": DATA_SOURCE,
                "prompt": [{"role": "user", "content": f"say {number % 10} of {number}"}],
                "ability": "copy",
                "reward_model": {"style": "rule", "ground_truth": str(number % 10)},
                "extra_info": {"index": number},
            }
            for number in range(first, first + count)
        ]
        pd.DataFrame(asked).to_parquet(folder / f"{name}_rows.parquet")


def job_keys(data: Path, out: Path) -> dict[str, Any]:
    """Hydra overrides of the job; ``data`` holds the files, ``out`` gets checkpoints and rollouts."""
    return {
        "data.train_files": [str(data / "train_rows.parquet")],
        "data.val_files": [str(data / "heldout_rows.parquet")],
        "data.train_batch_size": ROWS + PAIRS,
        "data.max_prompt_length": 128,
        "data.max_response_length": 4,
        "contextrl.pairs.train_files": [str(data / "train_pairs.parquet")],
        "contextrl.pairs.val_files": [str(data / "heldout_pairs.parquet")],
        "contextrl.pairs.per_batch": PAIRS,
        "contextrl.prompt.template": "short",
        "contextrl.loss.coef": 0.5,
        "contextrl.loss.schedule": "linear_warmup",
        "contextrl.loss.warmup_steps": STEPS,
        "actor_rollout_ref.model.path": str(data / "model"),
        # Two mini-batches a step: (4 rows * 4 rollouts + 16 pairs) / (4 * 2).
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 8,
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "actor_rollout_ref.rollout.n": ROLLOUTS,
        "actor_rollout_ref.rollout.max_model_len": 160,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 8,
        "trainer.total_training_steps": STEPS,
        "trainer.test_freq": STEPS,
        "trainer.val_before_train": False,
        "trainer.save_freq": 2,
        "trainer.resume_mode": "auto",
        "trainer.default_local_dir": str(out / "checkpoints"),
        "trainer.rollout_data_dir": str(out / "rollouts"),
    }


def rows_of_step(out: Path, step: int) -> list[str]:
    """What the step trained on, as verl wrote it down: sorted prompts, each with its expected answer."""
    lines = (out / "rollouts" / f"{step}.jsonl").read_text().splitlines()
    return sorted(f"{row['input']} -> {row['gts']}" for row in map(json.loads, lines))
