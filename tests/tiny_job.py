"""A job that passes the check before Ray: a tiny model, forty ordinary rows, eight pairs, and its Hydra overrides."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pair_factory import text_pair

from contextrl_verl.demo.evidence_pairs import rl_rows
from contextrl_verl.demo.tiny_model import make_model, make_tokenizer
from contextrl_verl.pairs.files import write_pairs


def write_job(folder: Path) -> dict[str, str]:
    """Write model and files under ``folder``; returns the overrides, by key."""
    make_model(folder / "model", make_tokenizer())
    for name, seed in (("train", 0), ("val", 1)):
        pd.DataFrame(rl_rows(20, seed)).to_parquet(folder / f"{name}.parquet")
    write_pairs([text_pair(number) for number in range(8)], folder / "pairs.parquet")
    return {
        "data.train_files": f"[{folder / 'train.parquet'}]",
        "data.val_files": f"[{folder / 'val.parquet'}]",
        "data.train_batch_size": "10",
        "data.max_prompt_length": "1024",
        "actor_rollout_ref.model.path": str(folder / "model"),
        "actor_rollout_ref.rollout.n": "2",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": "2",
        "actor_rollout_ref.actor.ppo_mini_batch_size": "4",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": "2",
        "contextrl.pairs.train_files": f"[{folder / 'pairs.parquet'}]",
        "contextrl.pairs.per_batch": "4",
    }


def as_overrides(keys: dict[str, str]) -> list[str]:
    """As they are written on the command line."""
    return [f"{key}={value}" for key, value in keys.items()]
