"""Everything that can be wrong with a job, found in the driver before Ray starts, and told at once."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.batch_plan import BatchPlan
from contextrl_verl.grpo.dataset import describe_plan, make_plan
from contextrl_verl.grpo.job_checks import DISPATCH, key_problems, listed
from contextrl_verl.grpo.limits import check_model, ranks_of_a_sequence
from contextrl_verl.grpo.resume import check_resume
from contextrl_verl.grpo.rl_files import check_joined, check_values, read_rows
from contextrl_verl.pairs.source import PairSource, held_out_pairs, training_pairs
from contextrl_verl.patches.cpu.environment import cpu_selected
from contextrl_verl.patches.cpu.limits import check_cpu_limits
from contextrl_verl.settings import Settings

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
Found = TypeVar("Found")


class _Findings:
    """Runs checks one after another and keeps what they say."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def of(self, check: Callable[..., Found], *arguments: Any) -> Found | None:
        """What the check returns; None if it found a problem."""
        try:
            return check(*arguments)
        except ConfigError as error:
            self.problems += error.problems
            return None


def check_job(settings: Settings) -> None:
    """Check keys, files, labels and counts of a job.

    Raises:
        ConfigError: all problems found, each one paragraph with key and fix.
    """
    run, uses_pairs = settings.run, settings.uses_pairs
    found = _Findings(key_problems(settings))
    rl_rows, _ = found.of(_check_rows, settings, "data.train_files"), found.of(_check_rows, settings, "data.val_files")
    config = found.of(load_model_config, run)
    if config is not None:
        if settings.objective == "context_awareness":
            found.of(check_model, run.model_extra or {}, config)
        if cpu_selected():
            found.of(check_cpu_limits, run.model_extra or {}, config)
    pairs, plan = None, None
    if uses_pairs or settings.pairs.val_files:
        tools = found.of(load_tokenizer, run) if config is not None else None
        if tools is not None and uses_pairs:
            pairs = found.of(training_pairs, settings, *tools)
        if tools is not None and settings.pairs.val_files:
            _check_held_out(found, settings, found.of(held_out_pairs, settings, *tools))
    if pairs is not None:
        found.of(_check_tokens, settings, pairs)
        if settings.objective != "context_awareness":
            # Only then does the rollout server see them.
            found.of(
                _check_server, run.model_extra or {}, pairs, "contextrl.pairs.train_files", run.max_response_length
            )
    if rl_rows is not None and (pairs is not None or not uses_pairs):
        plan = found.of(make_plan, settings, rl_rows, pairs)
    if plan is not None:
        found.of(check_resume, settings, plan)
    if found.problems:
        raise ConfigError(*found.problems)
    print(describe_plan(plan, pairs))
    _note_padding(settings, plan)


def _check_rows(settings: Settings, key: str) -> int:
    """The number of rows that a job reads of ``data.train_files`` or ``data.val_files``."""
    run, extra = settings.run, settings.run.model_extra or {}
    prompt_key, source_key = extra.get("prompt_key") or "prompt", extra.get("reward_fn_key") or "data_source"
    paths = listed(run.train_files if key == "data.train_files" else run.val_files)
    files = [read_rows(path, key, prompt_key, source_key) for path in paths]
    check_joined(paths, files, key)
    ours = extra.get("reward_path") == DISPATCH
    # A function of the user's own may do without a right answer.
    check_values(files, key, truth_needed=ours)
    if ours:
        _check_sources(sum((file.sources for file in files), Counter()), key, extra)
    limit = int(extra.get("train_max_samples") or -1) if key == "data.train_files" else -1
    rows = sum(file.rows for file in files)
    return min(rows, limit) if limit > 0 else rows


def _check_sources(sources: Counter[str], key: str, extra: dict[str, Any]) -> None:
    """A source that nothing scores has its rows dropped in every step."""
    from reward_fns.dispatch import check_sources

    problems = check_sources(sources, (extra.get("reward_kwargs") or {}).get("registry"))
    if problems:
        raise ConfigError(*(f"{key}: {problem}" for problem in problems))


def _check_held_out(found: _Findings, settings: Settings, pairs: PairSource | None) -> None:
    if pairs is None:
        return
    reply = 1 if settings.pairs.val_by == "choice" else settings.run.max_response_length
    found.of(_check_server, settings.run.model_extra or {}, pairs, "contextrl.pairs.val_files", reply)


def _check_server(extra: dict[str, Any], asked: PairSource, key: str, reply: int) -> None:
    """The rollout server refuses a longer prompt, or more images than it was told of, in the middle of the job."""
    room = extra.get("max_model_len")
    if room and asked.longest >= int(room):
        raise ConfigError(
            f"actor_rollout_ref.rollout.max_model_len is {room}, and the longest pair of {key} has {asked.longest} "
            f"tokens and its reply. Fix: actor_rollout_ref.rollout.max_model_len={asked.longest + reply} or more, or "
            "a smaller data.max_prompt_length, which leaves such pairs out."
        )
    limit = extra.get("limit_images")
    if limit is not None and asked.most_images > int(limit):
        raise ConfigError(
            f"actor_rollout_ref.rollout.limit_images is {limit}, and a pair of {key} shows {asked.most_images} images. "
            f"Fix: actor_rollout_ref.rollout.limit_images={asked.most_images}, or remove the pair."
        )


def _check_tokens(settings: Settings, pairs: PairSource) -> None:
    """verl stops in an update at a row that is longer than a micro-batch may be."""
    extra = settings.run.model_extra or {}
    limit = extra.get("ppo_max_token_len_per_gpu")
    if not extra.get("use_dynamic_bsz") or not limit:
        return
    orders, reply = 1, settings.run.max_response_length
    if settings.objective == "context_awareness":
        orders, reply = pairs.rotations() if settings.averages_margins else 1, 1
    longest, together = orders * (pairs.longest + reply), ranks_of_a_sequence(extra)[1]
    if longest > int(limit) * together:
        why = f" in its {orders} orders, which contextrl.loss.margin=averaged keeps together," if orders > 1 else ""
        replies = " with its reply" if reply > 1 else ""
        raise ConfigError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu is {limit}, and the longest pair of "
            f"contextrl.pairs.train_files has{why} {longest} tokens{replies}. Fix: at least {-(-longest // together)}, "
            "or a smaller data.max_prompt_length, which leaves such pairs out."
        )


def _check_path(key: str, path: str | None) -> None:
    # What starts like a path, or has more than the one slash of owner/name, is no name on the hub.
    if path and "://" not in path and (path[0] in "/.~" or path.count("/") > 1) and not Path(path).exists():
        home = " and write the home folder out" if path.startswith("~") else ""
        raise ConfigError(f"{key} is {path!r}, and there is no such folder. Fix: correct the path{home}.")


def _not_loaded(key: str, path: str | None, part: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{key} is {path!r}, and its {part} cannot be loaded: {str(error).rstrip('.')}. "
        "Fix: name a local checkpoint or a model your hub access reaches."
    )


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
        raise _not_loaded(key, path, "config", error) from None


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
        raise _not_loaded(key, path, "tokenizer", error) from None
    # verl takes a processor that fails to load for a text model's missing one, with a warning among many.
    failed = [str(warning.message) for warning in told if "Failed to create processor" in str(warning.message)]
    if failed and any((Path(local) / name).exists() for name in _PROCESSOR_FILES):
        print(f"contextrl: {key}={path!r} will be trained without images: {' '.join(failed[0].split())}")
    if extra.get("custom_chat_template"):
        tokenizer.chat_template = extra["custom_chat_template"]
        if processor is not None:
            processor.chat_template = extra["custom_chat_template"]
    return tokenizer, processor


def _note_padding(settings: Settings, plan: BatchPlan) -> None:
    mini = (settings.run.model_extra or {}).get("ppo_mini_batch_size")
    if not mini:
        return
    n = settings.run.rollout_n
    carried = settings.objective == "context_awareness"
    pairs = plan.pairs_per_batch * (1 if carried else n)
    rows, multiple = plan.rl_per_batch * n + pairs, int(mini) * n
    short = -rows % multiple
    if short:
        print(
            f"contextrl: a step has {rows} rows and verl fills it up to a multiple of ppo_mini_batch_size * n = "
            f"{multiple} "
            f"with {short} empty rows. They change nothing but time; pairs.per_batch = a multiple of n = {n} and "
            f"ppo_mini_batch_size = {rows}/({n} * mini-batches) avoid them."
        )
