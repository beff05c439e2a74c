"""What can be wrong with the keys of a job of supervised training on selections, found before anything is loaded.

verl's supervised trainer builds the model's config first of all, from its ``_target_`` key: the check hangs there.
Ray's workers import this module when they unpickle that config, so the one shim they need is applied here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from verl.workers.config import HFModelConfig

from contextrl_verl.arms import check_shared
from contextrl_verl.errors import ConfigError, JobRefused
from contextrl_verl.grpo.job_checks import check_path, check_platform
from contextrl_verl.patches.qwen2_vl_text_only import allow_text_only_batches
from contextrl_verl.settings import Settings, parse_settings

# The supporting label and the end of the turn.
REPLY_TOKENS = 2
_NO_LORA = "verl 0.9.1 writes the Hugging Face folder of a LoRA model under the adapter's names, which nothing loads"

allow_text_only_batches()


@dataclass
class SelectionModelConfig(HFModelConfig):
    """verl's model config plus the ``contextrl`` block; SystemExit if :func:`check_selection_job` finds something."""

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
        ConfigError: the problems found, each one paragraph with key and fix.
    """
    run, pairs = settings.run, settings.pairs
    check_path("model.path", run.model_path)
    check_platform("engine.strategy", run.strategy)
    ulysses, size = run.ulysses or 1, run.train_batch_size or 0
    key = "engine.ulysses_sequence_parallel_size"
    check_shared("data.train_batch_size", size, run.ranks or 1, together=ulysses, together_key=key)
    # Key, its value, the value it must have, why.
    one_pass = f"all epochs lie in one pass, so that the order is the seed's; set contextrl.epochs={run.total_epochs}"
    problems = [
        f"{key} is {value!r} ({why}). Fix: {key}={'null' if good is None else good}, its value in our yaml."
        for key, value, good, why in (
            ("trainer.total_epochs", run.total_epochs, 1, one_pass),
            ("data.train_files", run.train_files or [], pairs.train_files, "set contextrl.pairs.train_files"),
            ("data.val_files", run.val_files or [], pairs.val_files, "set contextrl.pairs.val_files"),
            ("data.max_length", run.max_length, None, "data.max_prompt_length takes its place"),
            ("data.pad_mode", run.pad_mode, "no_padding", "rows have their own lengths"),
            ("model.lora_rank", run.lora_rank, 0, _NO_LORA),
            ("model.lora_adapter_path", run.lora_adapter_path or None, None, _NO_LORA),
        )
        if value != good
    ]
    longest, saved = run.max_prompt_length + REPLY_TOKENS, set(run.save_contents or ())
    if size < 1:
        problems.append(f"data.train_batch_size is {run.train_batch_size}. Fix: at least 1.")
    if run.total_training_steps is not None and run.total_training_steps < 1:
        problems.append(
            f"trainer.total_training_steps is {run.total_training_steps}. Fix: at least 1, or null: contextrl.epochs."
        )
    if pairs.per_batch:
        problems.append(
            f"contextrl.pairs.per_batch is {pairs.per_batch}, and a batch of this job holds pairs alone. "
            f"Fix: data.train_batch_size={pairs.per_batch}, and leave contextrl.pairs.per_batch out."
        )
    if pairs.train_files and pairs.train_files == pairs.val_files:
        problems.append(
            f"contextrl.pairs.train_files and contextrl.pairs.val_files are the same list {pairs.val_files}. "
            "Fix: held-out pairs of their own, or contextrl.pairs.val_files=[]."
        )
    if run.use_dynamic_bsz and run.max_token_len_per_gpu * ulysses < longest:
        problems.append(
            f"data.max_token_len_per_gpu is {run.max_token_len_per_gpu}, and a pair may have data.max_prompt_length="
            f"{run.max_prompt_length} tokens and {REPLY_TOKENS} of the reply. "
            f"Fix: data.max_token_len_per_gpu={-(-longest // ulysses)} or more, or a lower data.max_prompt_length."
        )
    if "hf_model" not in saved:
        problems.append(
            f"checkpoint.save_contents is {sorted(saved)}: there would be no Hugging Face folder that GRPO can start "
            "from. Fix: add hf_model."
        )
    if run.save_freq != -1 and not saved >= {"model", "optimizer", "extra"}:
        problems.append(
            f"trainer.save_freq is {run.save_freq} and checkpoint.save_contents is {sorted(saved)}: verl would resume "
            "from such a checkpoint at its step, but with the weights of the start. "
            "Fix: checkpoint.save_contents=[model,optimizer,extra,hf_model], or trainer.save_freq=-1."
        )
    if problems:
        raise ConfigError(*problems)
