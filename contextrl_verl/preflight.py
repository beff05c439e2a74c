"""Everything that can be wrong with a job, found in the driver before Ray starts."""

from __future__ import annotations

from typing import Any

from contextrl_verl.dataset import describe_plan, make_plan
from contextrl_verl.errors import ConfigError
from contextrl_verl.pair_source import PairSource
from contextrl_verl.settings import Settings


def check_job(settings: Settings) -> None:
    """Check keys, files, labels and counts of a job.

    Raises:
        ConfigError: the first problem found, as one paragraph with key and fix.
    """
    run = settings.run
    _check_keys(settings)
    rl_rows = sum(_count_rows(path, "data.train_files") for path in _listed(run.train_files))
    for path in _listed(run.val_files):
        _count_rows(path, "data.val_files")
    pairs = None
    if settings.uses_pairs or settings.pairs.val_files:
        tokenizer, processor = load_tokenizer(run)
        if settings.uses_pairs:
            key = "contextrl.pairs.train_files"
            pairs = PairSource(settings.pairs.train_files, settings, tokenizer, processor, key)
        if settings.pairs.val_files:
            PairSource(settings.pairs.val_files, settings, tokenizer, processor, "contextrl.pairs.val_files")
    plan = make_plan(settings, rl_rows, pairs)
    print(describe_plan(plan, pairs))
    _note_padding(settings, plan.rl_per_batch)


def _check_keys(settings: Settings) -> None:
    run: Any = settings.run
    if run.shuffle:
        raise ConfigError(
            "data.shuffle is True: verl would shuffle items across batches and break the exact number of pairs. "
            "Fix: data.shuffle=False; contextrl.shuffle orders rows and pairs anew in every epoch."
        )
    if run.total_epochs != 1:
        raise ConfigError(
            f"trainer.total_epochs is {run.total_epochs}: the data set lays all epochs into one pass, so that a "
            f"resumed run continues exactly. Fix: trainer.total_epochs=1 contextrl.epochs={run.total_epochs}."
        )
    if settings.objective == "selection_reward" and settings.prompt_config.prefill:
        raise ConfigError(
            "contextrl.prompt.prefill is set, and objective=selection_reward lets the model write its whole reply. "
            "Fix: contextrl.prompt.prefill=''."
        )
    if settings.objective != "context_awareness":
        return
    extra = run.model_extra or {}
    refused = {
        "trainer.v1.trainer_mode": (extra.get("trainer_mode", "sync") != "sync", "sync"),
        "trainer.use_v1": (extra.get("use_v1", True) is False, True),
        "algorithm.filter_groups.enable": (bool(extra.get("filter_groups")), False),
        "distillation.enabled": (bool(extra.get("distillation")), False),
        "actor_rollout_ref.model.use_fused_kernels": (bool(extra.get("use_fused_kernels")), False),
        "actor_rollout_ref.actor.strategy": (extra.get("strategy", "fsdp") not in ("fsdp", "fsdp2"), "fsdp2"),
        "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size": (int(extra.get("ulysses") or 1) > 1, 1),
    }
    for key, (wrong, fix) in refused.items():
        if wrong:
            raise ConfigError(
                f"{key} is set to something context awareness does not support yet (verl 0.9.1: synchronous V1 "
                f"trainer, FSDP1 or FSDP2, logits in reach, an exact batch). Fix: {key}={fix}."
            )
    if extra.get("model_type") != "contextrl_language_model":
        raise ConfigError(
            f"actor_rollout_ref.model.model_type is {extra.get('model_type')!r}, so verl would not use the engine "
            "with the joint loss. Fix: actor_rollout_ref.model.model_type=contextrl_language_model."
        )


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]


def _count_rows(path: str, key: str) -> int:
    import os

    if "://" in path:
        raise ConfigError(
            f"{key}: {path} is remote and cannot be counted before the job. Fix: copy it to a local path."
        )
    if not os.path.isfile(path):
        raise ConfigError(f"{key}: there is no file {path}. Fix: correct the path.")
    if path.endswith(".parquet"):
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        if "supporting" in file.schema_arrow.names:
            raise ConfigError(f"{key}: {path} holds contrastive pairs. Fix: name it under contextrl.pairs instead.")
        return file.metadata.num_rows
    with open(path, "rb") as stream:
        return sum(1 for line in stream if line.strip())


def load_tokenizer(run: Any) -> tuple[Any, Any]:
    """Tokenizer and processor as verl itself builds them."""
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.fs import copy_to_local

    extra = run.model_extra or {}
    path, trust = extra.get("tokenizer_path") or extra.get("model_path"), bool(extra.get("trust_remote_code"))
    try:
        local = copy_to_local(path)
        tokenizer = hf_tokenizer(local, trust_remote_code=trust)
        processor = hf_processor(local, trust_remote_code=trust)
    except Exception as error:
        raise ConfigError(
            f"actor_rollout_ref.model.path is {path!r}, and its tokenizer cannot be loaded: {error}. "
            "Fix: name a local checkpoint or a model your hub access reaches."
        ) from None
    if extra.get("custom_chat_template"):
        tokenizer.chat_template = extra["custom_chat_template"]
        if processor is not None:
            processor.chat_template = extra["custom_chat_template"]
    return tokenizer, processor


def _note_padding(settings: Settings, rl_per_batch: int) -> None:
    mini = (settings.run.model_extra or {}).get("ppo_mini_batch_size")
    if not mini:
        return
    n = settings.run.rollout_n
    carried = settings.objective == "context_awareness"
    pairs = (settings.pairs.per_batch if settings.uses_pairs else 0) * (1 if carried else n)
    rows, multiple = rl_per_batch * n + pairs, int(mini) * n
    short = -rows % multiple
    if short:
        print(
            f"contextrl: a step has {rows} rows and verl fills it up to a multiple of ppo_mini_batch_size * n = "
            f"{multiple} "
            f"with {short} empty rows. They change nothing but time; pairs.per_batch = a multiple of n = {n} and "
            f"ppo_mini_batch_size = {rows}/({n} * mini-batches) avoid them."
        )
