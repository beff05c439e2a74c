"""Everything that can be wrong with a job, found in the driver before Ray starts, and told at once."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contextrl_verl.agents.task import DATA_SOURCE
from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.agent_checks import agent_rows, check_agents, check_prompts, tasks_of
from contextrl_verl.grpo.batch_plan import BatchPlan
from contextrl_verl.grpo.dataset import STATE, describe_plan, make_plan
from contextrl_verl.grpo.job_checks import CHECKS, DISPATCH, check_path, check_platform
from contextrl_verl.grpo.limits import check_joint_loss, check_model, ranks_of_a_sequence
from contextrl_verl.grpo.pair_source import PairSource, held_out_pairs, training_pairs
from contextrl_verl.grpo.rl_files import check_joined, check_values, read_rows
from contextrl_verl.patches.cpu.environment import cpu_selected
from contextrl_verl.patches.cpu.limits import check_cpu_limits
from contextrl_verl.settings import RunView, Settings

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_ANEW = "trainer.resume_mode=disable, or another trainer.default_local_dir, to start anew"


def check_job(settings: Settings) -> None:
    """Raises ConfigError with all that is wrong with a job's keys, files, labels and counts, a paragraph each."""
    run, uses_pairs = settings.run, settings.uses_pairs
    problems: list[str] = []

    def found(check: Callable[..., Any], *arguments: Any) -> Any:
        """What the check returns; None if it found a problem."""
        try:
            return check(*arguments)
        except ConfigError as error:
            problems.extend(error.problems)
            return None

    for check in CHECKS:
        found(lambda check=check: problems.extend(check(settings)))
    found(check_platform, "actor_rollout_ref.actor.strategy", run.strategy)
    if settings.objective == "context_awareness":
        found(check_joint_loss, run)
    rl_rows, _ = found(_check_rows, settings, "data.train_files"), found(_check_rows, settings, "data.val_files")
    config = found(load_model_config, run)
    if config is not None:
        if settings.objective == "context_awareness":
            found(check_model, run, config)
        if cpu_selected():
            found(check_cpu_limits, run, config)
    pairs, plan, tools, agents = None, None, None, agent_rows(settings)
    if config is not None and (uses_pairs or settings.pairs.val_files or agents):
        tools = found(load_tokenizer, run)
    if agents:
        problems.extend(check_agents(settings, agents))
        tasks = found(tasks_of, settings, agents)
        if tasks is not None and tools is not None:
            found(check_prompts, settings, tasks, *tools, config.model_type)
    if uses_pairs or settings.pairs.val_files:
        if tools is not None and uses_pairs:
            pairs = found(training_pairs, settings, *tools)
        if tools is not None and settings.pairs.val_files:
            asked, by_choice = found(held_out_pairs, settings, *tools), settings.pairs.val_by == "choice"
            if asked is not None:
                reply = 1 if by_choice else run.max_response_length
                found(_check_server, run, asked, "contextrl.pairs.val_files", reply)
    if pairs is not None:
        found(_check_tokens, settings, pairs)
        if settings.objective != "context_awareness":
            # Only then does the rollout server see them.
            found(_check_server, run, pairs, "contextrl.pairs.train_files", run.max_response_length)
    if rl_rows is not None and (pairs is not None or not uses_pairs):
        plan = found(make_plan, settings, rl_rows, pairs)
    if plan is not None:
        found(check_resume, settings, plan)
    if problems:
        raise ConfigError(*problems)
    print(describe_plan(plan, pairs))
    _note_padding(settings, plan)


def _check_rows(settings: Settings, key: str) -> int:
    """The number of rows that a job reads of ``data.train_files`` or ``data.val_files``."""
    run, train = settings.run, key == "data.train_files"
    paths = (run.train_files if train else run.val_files) or []
    files = [read_rows(path, key, run.prompt_key, run.reward_fn_key) for path in paths]
    check_joined(paths, files, key)
    ours = run.reward_path == DISPATCH
    # A function of the user's own may do without a right answer.
    check_values(files, key, truth_needed=ours)
    if ours:
        # A source that nothing scores has its rows dropped in every step.
        from reward_fns.dispatch import check_sources

        sources = sum((file.sources for file in files), Counter())
        del sources[DATA_SOURCE]  # scored by the loop itself; a Counter lets it be missing
        problems = check_sources(sources, (run.reward_kwargs or {}).get("registry"))
        if problems:
            raise ConfigError(*(f"{key}: {problem}" for problem in problems))
    rows, limit = sum(file.rows for file in files), (run.train_max_samples or -1) if train else -1
    return min(rows, limit) if limit > 0 else rows


def _check_server(run: RunView, asked: PairSource, key: str, reply: int) -> None:
    """The rollout server refuses a longer prompt, or more images than it was told of, in the middle of the job."""
    if run.max_model_len and asked.longest >= run.max_model_len:
        raise ConfigError(
            f"actor_rollout_ref.rollout.max_model_len is {run.max_model_len}, and the longest pair of {key} has "
            f"{asked.longest} tokens and its reply. Fix: actor_rollout_ref.rollout.max_model_len="
            f"{asked.longest + reply} or more, or a smaller data.max_prompt_length, which leaves such pairs out."
        )
    if run.limit_images is not None and asked.most_images > run.limit_images:
        raise ConfigError(
            f"actor_rollout_ref.rollout.limit_images is {run.limit_images}, and a pair of {key} shows "
            f"{asked.most_images} images. Fix: actor_rollout_ref.rollout.limit_images={asked.most_images}, or remove "
            "the pair."
        )


def _check_tokens(settings: Settings, pairs: PairSource) -> None:
    """verl stops in an update at a row that is longer than a micro-batch may be."""
    run, limit = settings.run, settings.run.ppo_max_token_len_per_gpu
    if not run.use_dynamic_bsz or not limit:
        return
    orders, reply = 1, run.max_response_length
    if settings.objective == "context_awareness":
        orders, reply = pairs.rotations() if settings.averages_margins else 1, 1
    longest, together = orders * (pairs.longest + reply), ranks_of_a_sequence(run)[1]
    if longest > limit * together:
        why = f" in its {orders} orders, which contextrl.loss.margin=averaged keeps together," if orders > 1 else ""
        replies = " with its reply" if reply > 1 else ""
        raise ConfigError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu is {limit}, and the longest pair of "
            f"contextrl.pairs.train_files has{why} {longest} tokens{replies}. Fix: at least {-(-longest // together)}, "
            "or a smaller data.max_prompt_length, which leaves such pairs out."
        )


def check_resume(settings: Settings, plan: BatchPlan) -> None:
    """Raises ConfigError if verl would resume from a checkpoint that this job cannot go on from.

    That is one whose data loader knows nothing of our plan (written without this package: verl would go on at a
    position that means other rows), or one at or behind the plan's last step (the job would end without training).
    """
    folder, key = _resumed(settings.run)
    if folder is None:
        return
    step = int(folder.rstrip("/").split("global_step_")[-1])
    if step >= plan.steps:
        raise ConfigError(
            f"{key} leads to {folder}, at step {step}, and this job ends after {plan.steps} steps: nothing would be "
            f"trained. Fix: more contextrl.epochs or trainer.total_training_steps, or {_ANEW}."
        )
    import torch

    try:
        state = torch.load(os.path.join(folder, "data.pt"), weights_only=True)
    except (FileNotFoundError, pickle.UnpicklingError, RuntimeError):
        return  # nothing there, or more than plain values, which are not unpickled here
    if repr(STATE) not in repr(state):
        raise ConfigError(
            f"{key} leads to {folder}, which a job without contextrl wrote: its data loader's position would mean "
            "other rows here, and steps would be skipped. Fix: to train on from its weights, contextrl export them or "
            f"merge them with verl's model merger and name the result as actor_rollout_ref.model.path; {_ANEW}."
        )


def _resumed(run: RunView) -> tuple[str | None, str]:
    """The checkpoint that verl would load, and the key that leads there."""
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    if run.resume_mode == "resume_path":
        folder = run.resume_from_path
        if not folder or "global_step_" not in folder or not os.path.isdir(folder):
            raise ConfigError(
                f"trainer.resume_mode is 'resume_path' and trainer.resume_from_path is {folder!r}, which is no folder "
                "of a checkpoint. Fix: a folder global_step_N, or trainer.resume_mode=auto."
            )
        return folder, "trainer.resume_from_path"
    if run.resume_mode == "auto" and run.default_local_dir:
        with contextlib.redirect_stdout(io.StringIO()):  # verl will say it again
            return find_latest_ckpt_path(os.path.abspath(run.default_local_dir)), "trainer.default_local_dir"
    return None, ""


def _not_loaded(key: str, path: str | None, part: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{key} is {path!r}, and its {part} cannot be loaded: {str(error).rstrip('.')}. "
        "Fix: name a local checkpoint or a model your hub access reaches."
    )


def load_model_config(run: RunView) -> Any:
    """The model's own config, with the user's ``override_config`` of plain fields left aside."""
    from transformers import AutoConfig
    from verl.utils.fs import copy_to_local

    key = "actor_rollout_ref.model.path"
    check_path(key, run.model_path)
    try:
        return AutoConfig.from_pretrained(copy_to_local(run.model_path), trust_remote_code=run.trust_remote_code)
    except Exception as error:
        raise _not_loaded(key, run.model_path, "config", error) from None


def load_tokenizer(run: RunView) -> tuple[Any, Any]:
    """Tokenizer and processor as verl itself builds them."""
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.fs import copy_to_local

    path, trust = run.tokenizer_path or run.model_path, run.trust_remote_code
    key = "actor_rollout_ref.model." + ("tokenizer_path" if run.tokenizer_path else "path")
    check_path(key, path)
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
    if run.custom_chat_template:
        for part in (tokenizer, processor):
            if part is not None:
                part.chat_template = run.custom_chat_template
    return tokenizer, processor


def _note_padding(settings: Settings, plan: BatchPlan) -> None:
    mini, n = settings.run.ppo_mini_batch_size, settings.run.rollout_n
    if not mini:
        return
    rows = plan.rl_per_batch * n + plan.pairs_per_batch * (1 if settings.objective == "context_awareness" else n)
    short = -rows % (mini * n)
    if short:
        print(
            f"contextrl: a step has {rows} rows and verl fills it up to a multiple of ppo_mini_batch_size * n = "
            f"{mini * n} with {short} empty rows. They change nothing but time; pairs.per_batch = a multiple of "
            f"n = {n} and ppo_mini_batch_size = {rows}/({n} * mini-batches) avoid them."
        )
