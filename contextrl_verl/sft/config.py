"""What can be wrong with the keys of a job of supervised training on selections, found before anything is loaded.

verl's supervised trainer builds the model's config first of all, from its ``_target_`` key: the check hangs there.
Ray's workers import this module when they unpickle that config, so the one shim they need is applied here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl.workers.config import HFModelConfig

from contextrl_verl.errors import ConfigError, JobRefused
from contextrl_verl.grpo.job_checks import listed
from contextrl_verl.patches.cpu.environment import cpu_selected
from contextrl_verl.patches.qwen2_vl_text_only import allow_text_only_batches
from contextrl_verl.settings import Settings, parse_settings

# The supporting label and the end of the turn.
REPLY_TOKENS = 2
_RESUMABLE = {"model", "optimizer", "extra"}

allow_text_only_batches()


@dataclass
class SelectionModelConfig(HFModelConfig):
    """verl's model config plus the ``contextrl`` block of the job.

    Raises:
        SystemExit: with one paragraph, if :func:`check_selection_job` finds something.
    """

    contextrl: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            check_selection_job(parse_settings(self.contextrl))
        except ConfigError as error:
            raise JobRefused(error) from None
        super().__post_init__()


def check_selection_job(settings: Settings) -> None:
    """Check keys and counts; files, labels and lengths of pairs are checked by the data set, before the workers start.

    Raises:
        ConfigError: the first problem found, as one paragraph with key and fix.
    """
    run, extra = settings.run, settings.run.model_extra or {}
    path = str(extra.get("model_path"))
    if "://" not in path and (path[:1] in "/.~" or path.count("/") > 1) and not Path(path).exists():
        home = " and write the home folder out" if path.startswith("~") else ""
        raise ConfigError(f"model.path is {path!r}, and there is no such folder. Fix: correct the path{home}.")
    if settings.pairs.per_batch:
        raise ConfigError(
            f"contextrl.pairs.per_batch is {settings.pairs.per_batch}, and a batch of this job holds pairs alone. "
            f"Fix: data.train_batch_size={settings.pairs.per_batch}, and leave contextrl.pairs.per_batch out."
        )
    if not settings.pairs.train_files:
        raise ConfigError(
            "contextrl.pairs.train_files is empty, and there is nothing to train on. "
            "Fix: contextrl.pairs.train_files=[path.parquet]."
        )
    if settings.pairs.train_files == settings.pairs.val_files:
        raise ConfigError(
            f"contextrl.pairs.train_files and contextrl.pairs.val_files are the same list {settings.pairs.val_files}. "
            "Fix: held-out pairs of their own, or contextrl.pairs.val_files=[]."
        )
    # Key, its value, the value it must have, why.
    one_pass = f"all epochs lie in one pass, so that the order is the seed's; set contextrl.epochs={run.total_epochs}"
    for key, value, good, why in (
        ("trainer.total_epochs", run.total_epochs, 1, one_pass),
        ("data.train_files", listed(run.train_files), settings.pairs.train_files, "set contextrl.pairs.train_files"),
        ("data.val_files", listed(run.val_files), settings.pairs.val_files, "set contextrl.pairs.val_files"),
        ("data.max_length", extra.get("max_length"), None, "data.max_prompt_length takes its place"),
        ("data.pad_mode", extra.get("pad_mode"), "no_padding", "rows have their own lengths"),
    ):
        if value != good:
            fix = "null" if good is None else good
            raise ConfigError(f"{key} is {value!r} ({why}). Fix: {key}={fix}, its value in our yaml.")
    _check_batch(run, extra)
    _check_saving(extra)
    if cpu_selected() and extra.get("strategy") == "fsdp":
        raise ConfigError(
            "engine.strategy is 'fsdp' and VERL_PLATFORM is cpu: verl loads FSDP1 by a device index, which a CPU has "
            "not. Fix: engine.strategy=fsdp2."
        )


def _check_batch(run: Any, extra: dict[str, Any]) -> None:
    ranks = int(extra.get("nnodes") or 1) * int(extra.get("n_gpus_per_node") or 1)
    ulysses = int(extra.get("ulysses") or 1)
    if ranks % ulysses:
        raise ConfigError(
            f"engine.ulysses_sequence_parallel_size is {ulysses}, and there are {ranks} GPUs. "
            f"Fix: a divisor of {ranks}."
        )
    groups = ranks // ulysses
    if not run.train_batch_size or run.train_batch_size < 1 or run.train_batch_size % groups:
        raise ConfigError(
            f"data.train_batch_size is {run.train_batch_size}, and its selections are shared out evenly among {groups} "
            "data-parallel ranks (trainer.nnodes * trainer.n_gpus_per_node / engine.ulysses_sequence_parallel_size). "
            f"Fix: a multiple of {groups}."
        )
    room, longest = int(extra.get("max_token_len_per_gpu") or 0) * ulysses, run.max_prompt_length + REPLY_TOKENS
    if extra.get("use_dynamic_bsz") and room < longest:
        raise ConfigError(
            f"data.max_token_len_per_gpu is {room // ulysses}, and a pair may have data.max_prompt_length="
            f"{run.max_prompt_length} tokens and {REPLY_TOKENS} of the reply. "
            f"Fix: data.max_token_len_per_gpu={-(-longest // ulysses)} or more, or a lower data.max_prompt_length."
        )


def _check_saving(extra: dict[str, Any]) -> None:
    saved, every = set(listed(extra.get("save_contents"))), extra.get("save_freq", -1)
    if "hf_model" not in saved:
        raise ConfigError(
            f"checkpoint.save_contents is {sorted(saved)}: there would be no Hugging Face folder that GRPO can start "
            "from. Fix: add hf_model."
        )
    if every != -1 and not saved >= _RESUMABLE:
        raise ConfigError(
            f"trainer.save_freq is {every} and checkpoint.save_contents is {sorted(saved)}: verl would resume from "
            "such a checkpoint at its step, but with the weights of the start. "
            "Fix: checkpoint.save_contents=[model,optimizer,extra,hf_model], or trainer.save_freq=-1."
        )
    if int(extra.get("lora_rank") or 0) > 0 or extra.get("lora_adapter_path"):
        raise ConfigError(
            f"model.lora_rank is {extra.get('lora_rank')} and model.lora_adapter_path is "
            f"{extra.get('lora_adapter_path')!r}: verl 0.9.1 writes the Hugging Face folder of a LoRA model under the "
            "adapter's own names, which nothing loads. Fix: model.lora_rank=0 model.lora_adapter_path=null."
        )
