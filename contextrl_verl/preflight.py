"""Everything that can be wrong with a job, found in the driver before Ray starts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from contextrl_verl.cpu.environment import cpu_selected
from contextrl_verl.dataset import describe_plan, make_plan
from contextrl_verl.errors import ConfigError
from contextrl_verl.limits import check_joint_loss, check_model, ranks_of_a_sequence
from contextrl_verl.pair_source import PairSource, held_out_pairs, training_pairs
from contextrl_verl.rl_files import count_rows
from contextrl_verl.settings import Settings

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def check_job(settings: Settings) -> None:
    """Check keys, files, labels and counts of a job.

    Raises:
        ConfigError: the first problem found, as one paragraph with key and fix.
    """
    run = settings.run
    _check_keys(settings)
    extra = run.model_extra or {}
    prompt_key, limit = extra.get("prompt_key") or "prompt", int(extra.get("train_max_samples") or -1)
    rl_rows = sum(count_rows(path, "data.train_files", prompt_key) for path in _listed(run.train_files))
    rl_rows = min(rl_rows, limit) if limit > 0 else rl_rows
    for path in _listed(run.val_files):
        count_rows(path, "data.val_files", prompt_key)
    pairs = None
    if settings.uses_pairs or settings.pairs.val_files:
        tokenizer, processor = load_tokenizer(run)
        if settings.uses_pairs:
            pairs = training_pairs(settings, tokenizer, processor)
            _check_tokens(settings, pairs)
            if settings.objective != "context_awareness":
                # Only then does the rollout server see them.
                _check_images(pairs, extra, "contextrl.pairs.train_files")
        if settings.pairs.val_files:
            _check_images(held_out_pairs(settings, tokenizer, processor), extra, "contextrl.pairs.val_files")
    plan = make_plan(settings, rl_rows, pairs)
    print(describe_plan(plan, pairs))
    _note_padding(settings, plan.rl_per_batch)


def _check_images(asked: PairSource, extra: dict[str, Any], key: str) -> None:
    """The rollout server refuses a prompt with more images than it was told of, in the middle of the job."""
    limit = extra.get("limit_images")
    if limit is not None and asked.most_images > int(limit):
        raise ConfigError(
            f"actor_rollout_ref.rollout.limit_images is {limit}, and a pair of {key} shows {asked.most_images} images. "
            f"Fix: actor_rollout_ref.rollout.limit_images={asked.most_images}, or remove the pair."
        )


def _check_tokens(settings: Settings, pairs: PairSource) -> None:
    """verl stops in the first update at a row that is longer than a micro-batch may be."""
    extra = settings.run.model_extra or {}
    limit = extra.get("ppo_max_token_len_per_gpu")
    if settings.objective != "context_awareness" or not extra.get("use_dynamic_bsz") or not limit:
        return
    orders = pairs.rotations() if settings.averages_margins else 1
    longest, together = orders * (pairs.longest + 1), ranks_of_a_sequence(extra)[1]
    if longest > int(limit) * together:
        why = f" in its {orders} orders, which contextrl.loss.margin=averaged keeps together," if orders > 1 else ""
        raise ConfigError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu is {limit}, and the longest pair of "
            f"contextrl.pairs.train_files has{why} {longest} tokens. Fix: at least {-(-longest // together)}, or a "
            "smaller data.max_prompt_length, which leaves such pairs out."
        )


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
    train, val = _listed(run.train_files), _listed(run.val_files)
    if train == val:
        raise ConfigError(
            f"data.train_files and data.val_files are the same list {train}; verl does not tell a data set which of "
            "the two it serves. Fix: give validation its own file, data.val_files=[...] (a copy will do)."
        )
    if settings.uses_pairs and run.gen_batch_size not in (None, run.train_batch_size):
        raise ConfigError(
            f"data.gen_batch_size is {run.gen_batch_size} and data.train_batch_size is {run.train_batch_size}: the "
            "number of pairs is exact in a whole batch. Fix: leave data.gen_batch_size unset."
        )
    extra = run.model_extra or {}
    _check_ranks(run.rollout_n, extra)
    if cpu_selected() and extra.get("strategy") == "fsdp":
        raise ConfigError(
            "actor_rollout_ref.actor.strategy is 'fsdp' and VERL_PLATFORM is cpu: verl loads FSDP1 by a device index, "
            "which a CPU has not. Fix: actor_rollout_ref.actor.strategy=fsdp2."
        )
    if settings.pairs.val_files and settings.pairs.val_by == "choice" and extra.get("rollout_name") != "vllm":
        raise ConfigError(
            f"actor_rollout_ref.rollout.name is {extra.get('rollout_name')!r}, and contextrl.pairs.val_files are asked "
            "with a sampling parameter of vLLM (allowed_token_ids). Fix: actor_rollout_ref.rollout.name=vllm, or "
            "contextrl.pairs.val_by=reply."
        )
    if settings.objective != "context_awareness":
        return
    check_joint_loss(extra)
    if extra.get("use_fused_kernels") or ranks_of_a_sequence(extra)[1] > 1:
        check_model(extra, load_model_config(run))


def _check_ranks(rollouts: int, extra: dict[str, Any]) -> None:
    """verl notices in the workers, when models are loaded."""
    gpus, nodes = extra.get("n_gpus_per_node"), extra.get("nnodes")
    mini = extra.get("ppo_mini_batch_size")
    if not gpus or not nodes or not mini:
        return
    ranks, rows = int(gpus) * int(nodes), int(mini) * rollouts
    key, together = ranks_of_a_sequence(extra)
    if ranks % together:
        raise ConfigError(
            f"{key} is {together}, and trainer.nnodes * trainer.n_gpus_per_node = {ranks} ranks cannot be divided into "
            f"groups of {together}. Fix: a divisor of {ranks}, or another number of GPUs."
        )
    groups = ranks // together
    if rows % groups:
        shared = f", {together} to a sequence" if together > 1 else ""
        raise ConfigError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size is {mini}, with rollout.n={rollouts} {rows} rows, which "
            f"trainer.nnodes * trainer.n_gpus_per_node = {ranks} ranks{shared} cannot share equally. Fix: a mini-batch "
            f"whose rows are a multiple of {groups}, or another number of GPUs."
        )


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]


def _check_path(key: str, path: str | None) -> None:
    # What starts like a path, or has more than the one slash of owner/name, is no name on the hub.
    if path and "://" not in path and (path[0] in "/.~" or path.count("/") > 1) and not Path(path).exists():
        home = " and write the home folder out" if path.startswith("~") else ""
        raise ConfigError(f"{key} is {path!r}, and there is no such folder. Fix: correct the path{home}.")


def load_model_config(run: Any) -> Any:
    """The model's own config, with the user's ``override_config`` of plain fields left aside."""
    from transformers import AutoConfig
    from verl.utils.fs import copy_to_local

    extra = run.model_extra or {}
    key, path = "actor_rollout_ref.model.path", extra.get("model_path")
    _check_path(key, path)
    try:
        return AutoConfig.from_pretrained(copy_to_local(path), trust_remote_code=bool(extra.get("trust_remote_code")))
    except Exception as error:
        raise ConfigError(
            f"{key} is {path!r}, and its config cannot be loaded: {str(error).rstrip('.')}. "
            "Fix: name a local checkpoint or a model your hub access reaches."
        ) from None


def load_tokenizer(run: Any) -> tuple[Any, Any]:
    """Tokenizer and processor as verl itself builds them."""
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.fs import copy_to_local

    extra = run.model_extra or {}
    path, trust = extra.get("tokenizer_path") or extra.get("model_path"), bool(extra.get("trust_remote_code"))
    key = "actor_rollout_ref.model." + ("tokenizer_path" if extra.get("tokenizer_path") else "path")
    _check_path(key, path)
    try:
        local = copy_to_local(path)
        tokenizer = hf_tokenizer(local, trust_remote_code=trust)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            processor = hf_processor(local, trust_remote_code=trust)
    except Exception as error:
        raise ConfigError(
            f"{key} is {path!r}, and its tokenizer cannot be loaded: {str(error).rstrip('.')}. "
            "Fix: name a local checkpoint or a model your hub access reaches."
        ) from None
    # verl takes a processor that fails to load for a text model's missing one, with a warning among many.
    failed = [str(warning.message) for warning in told if "Failed to create processor" in str(warning.message)]
    if failed and any((Path(local) / name).exists() for name in _PROCESSOR_FILES):
        print(f"contextrl: {key}={path!r} will be trained without images: {' '.join(failed[0].split())}")
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
