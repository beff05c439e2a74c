"""A small job as verl sees it: files, the composed config, and the data loaders that verl's own trainer builds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.files import write_pairs


@functools.lru_cache
def _composed() -> DictConfig:
    with initialize_config_module("contextrl_verl.config", version_base=None):
        return compose(config_name="contextrl_trainer_cpu")


def compose_job(*overrides: str) -> DictConfig:
    """The whole config of a CPU job, interpolations resolved as verl's task runner does before it builds a trainer."""
    # Composing takes seconds; a merge refuses unknown keys as an override does.
    config = OmegaConf.merge(_composed(), OmegaConf.from_dotlist(list(overrides)))
    OmegaConf.resolve(config)
    return config


def buffer_of(config: DictConfig, refill: Callable[[int], Any] = lambda count: None, **more: Any) -> Any:
    """The replay buffer, as verl's trainer makes it of a job's config."""
    from contextrl_verl.grpo.replay_buffer import replay_buffer

    sampler, mode = config.trainer.v1.sampler, config.trainer.v1.trainer_mode
    return replay_buffer(
        trainer_mode=mode,
        trainer_config=config.trainer.v1.get(mode, {}),
        max_off_policy_threshold=sampler.max_off_policy_threshold,
        max_off_policy_strategy=sampler.max_off_policy_strategy,
        sampler_kwargs=sampler.sampler_kwargs,
        refill_fn=refill,
        **more,
    )


def write_rows(path: Path, numbers: Iterable[int], **columns: Any) -> Path:
    """Ordinary rows in verl's columns; ``columns`` are added to every row, or left out where ``...`` is given."""
    rows = [
        {
            "data_source": "test/rl",
            "prompt": [{"role": "user", "content": f"say {number}"}],
            "ability": "copy",
            "reward_model": {"style": "rule", "ground_truth": str(number)},
            "extra_info": {"index": number, "split": "train"},
            **columns,
        }
        for number in numbers
    ]
    left_out = [name for name, value in columns.items() if value is ...]
    pd.DataFrame(rows).drop(columns=left_out).to_parquet(path)
    return path


def agent_row(task: Any, index: int, **columns: Any) -> dict[str, Any]:
    """An agent's task in verl's columns."""
    return {
        "data_source": "contextrl/swe",
        "agent_name": "contextrl_swe_agent",
        "prompt": [{"role": "user", "content": "not read"}],
        "reward_model": {"style": "rule", "ground_truth": task.instance_id},
        "extra_info": {"index": index, "task": task.model_dump_json()},
        **columns,
    }


def job_on(
    folder: Path,
    *overrides: str,
    rows: range = range(12),
    pairs: list[ContrastivePair] | None = None,
    held_out: list[ContrastivePair] | None = None,
    batch: int = 5,
    per_batch: int = 2,
    **columns: Any,
) -> DictConfig:
    """Write the files of a job into ``folder`` and compose its config."""
    train, val = write_rows(folder / "train.parquet", rows, **columns), folder / "val.parquet"
    write_rows(val, range(100, 103), **columns)
    block = [f"contextrl.pairs.per_batch={per_batch}"]
    for key, content in (("train", pairs), ("val", held_out)):
        if content is not None:
            path = folder / f"{key}_pairs.parquet"
            write_pairs(content, path)
            block.append(f"contextrl.pairs.{key}_files=[{path}]")
    return compose_job(
        f"data.train_files=[{train}]",
        f"data.val_files=[{val}]",
        f"data.train_batch_size={batch}",
        "data.max_prompt_length=1024",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.model.path=not-needed-here",
        *block,
        *overrides,
    )


def verl_loaders(config: DictConfig, tokenizer: Any, processor: Any = None) -> SimpleNamespace:
    """What verl's trainer holds after its own ``_init_dataloader``: data sets and loaders, by verl's names."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    trainer = SimpleNamespace(
        config=config,
        tokenizer=tokenizer,
        processor=processor,
        trainer_mode=config.trainer.v1.trainer_mode,
        parameter_sync_step=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", Path(config.data.train_files[0]).parent / "cache")
        PPOTrainer._init_dataloader(trainer)
    return trainer


def row_ids(batch: dict[str, Any]) -> list[str]:
    """Pair id and shown position of the supporting context, or ``rl`` and the number of the row."""
    return [
        f"{info['pair_id']}@{info['supporting_position']}" if "pair_id" in info else f"rl{info['index']}"
        for info in batch["extra_info"]
    ]


def pairs_in(ids: Iterable[str]) -> list[str]:
    """The pair ids among row ids, without positions."""
    return [name.split("@")[0] for name in ids if "@" in name]
