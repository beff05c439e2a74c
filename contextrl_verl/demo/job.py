"""A small job of verl's trainer as the demonstration, rehearsals and benchmarks run it: its four files and its keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.files import write_pairs

ROWS, PAIRS, VAL_ROWS, VAL_PAIRS = (
    f"{name}.parquet" for name in ("train_rows", "train_pairs", "val_rows", "val_pairs")
)


def write_data(
    folder: Path,
    rows: list[dict[str, Any]],
    pairs: Sequence[ContrastivePair],
    val_rows: list[dict[str, Any]],
    val_pairs: Sequence[ContrastivePair],
) -> None:
    """Ordinary rows and pairs, to train on and for the trainer's own validation."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(folder / ROWS)
    pd.DataFrame(val_rows).to_parquet(folder / VAL_ROWS)
    write_pairs(pairs, folder / PAIRS)
    write_pairs(val_pairs, folder / VAL_PAIRS)


def small_job(
    data: Path, out: Path, model: Path | str, seed: int, *, steps: int, rate: float, micro_batch: int, tokens: list[int]
) -> dict[str, Any]:
    """Hydra overrides that every small job has: without checkpoints, validated before the first step.

    ``data`` is what `write_data` filled, ``tokens`` those of a prompt and of a response at most.
    """
    prompt, response = tokens
    return {
        "data.train_files": [str(data / ROWS)],
        "data.val_files": [str(data / VAL_ROWS)],
        "data.max_prompt_length": prompt,
        "data.max_response_length": response,
        "contextrl.pairs.train_files": [str(data / PAIRS)],
        "contextrl.pairs.val_files": [str(data / VAL_PAIRS)],
        "contextrl.prompt.template": "short",
        "contextrl.loss.coef": 1.0,
        "contextrl.seed": seed,
        "actor_rollout_ref.model.path": str(model),
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": micro_batch,
        "actor_rollout_ref.actor.optim.lr": rate,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": micro_batch,
        "actor_rollout_ref.rollout.max_model_len": prompt + 2 * response,
        "actor_rollout_ref.rollout.seed": seed,
        "trainer.total_training_steps": steps,
        "trainer.val_before_train": True,
        "trainer.save_freq": -1,
        "trainer.resume_mode": "disable",
        "trainer.default_local_dir": str(out / "checkpoints"),
        "trainer.project_name": "contextrl",
        "trainer.experiment_name": out.name,
    }
