"""Keys of a job that cannot be right together, told from its config alone.

A check is a function of the settings that yields one paragraph a problem, or raises. :data:`CHECKS` lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from contextrl_verl.arms import check_shared
from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.limits import ranks_of_a_sequence
from contextrl_verl.patches.cpu.environment import cpu_selected
from contextrl_verl.settings import Settings

REGISTER, MANAGERS = "contextrl_verl.grpo.register", "contextrl_verl.grpo.reward_managers"
SAMPLER = "contextrl_verl.grpo.replay_buffer"
DISPATCH = "pkg://reward_fns.dispatch"


def check_path(key: str, path: str | None) -> None:
    """Raises ConfigError for a local path where nothing is."""
    # What starts like a path, or has more than the one slash of owner/name, is no name on the hub.
    if path and "://" not in path and (path[0] in "/.~" or path.count("/") > 1) and not Path(path).exists():
        home = " and write the home folder out" if path.startswith("~") else ""
        raise ConfigError(f"{key} is {path!r}, and there is no such folder. Fix: correct the path{home}.")


def check_platform(key: str, strategy: str) -> None:
    """Raises ConfigError for FSDP1 on a CPU."""
    if cpu_selected() and strategy == "fsdp":
        raise ConfigError(
            f"{key} is 'fsdp' and VERL_PLATFORM is cpu: verl loads FSDP1 by a device index, which a CPU has not. "
            f"Fix: {key}=fsdp2."
        )


def load_named(path: str | None, name: str | None, key: str) -> Any:
    """The object that ``<key>.path`` and ``<key>.name`` name, loaded as verl's workers will, or ConfigError."""
    from verl.utils.import_utils import load_extern_object

    try:
        return load_extern_object(path, name)
    except Exception as error:
        why = error.__cause__ or error
        raise ConfigError(
            f"{key}.path is {path!r} and {key}.name is {name!r}, which cannot be loaded: {type(why).__name__}: {why}. "
            "Fix: correct path and name, or mend the file."
        ) from None


def _order_of_rows(settings: Settings) -> Iterator[str]:
    run = settings.run
    if run.shuffle:
        yield (
            "data.shuffle is True: verl would shuffle items across batches and break the exact number of pairs. "
            "Fix: data.shuffle=False; contextrl.shuffle orders rows and pairs anew in every epoch."
        )
    if run.total_epochs not in (1, settings.epochs):
        yield (
            f"trainer.total_epochs is {run.total_epochs} and contextrl.epochs is {settings.epochs}: both say how often "
            f"data.train_files are passed through. Fix: contextrl.epochs={run.total_epochs}, or leave one of them out."
        )
    if settings.uses_pairs and run.gen_batch_size not in (None, run.train_batch_size):
        yield (
            f"data.gen_batch_size is {run.gen_batch_size} and data.train_batch_size is {run.train_batch_size}: the "
            "number of pairs is exact in a whole batch. Fix: leave data.gen_batch_size unset."
        )
    from contextrl_verl.grpo.dataset import check_lists

    check_lists(run.train_files, run.val_files)


def _ranks(settings: Settings) -> Iterator[str]:
    """verl notices in the workers, when models are loaded."""
    run = settings.run
    if not run.ranks:
        return
    sizes = (run.tensor_model_parallel_size, run.pipeline_model_parallel_size, run.data_parallel_size)
    served = prod(size or 1 for size in sizes)
    if run.ranks % served:
        yield (
            f"actor_rollout_ref.rollout.tensor_model_parallel_size is {run.tensor_model_parallel_size}: a rollout "
            f"server takes {served} GPUs (tensor * pipeline * data parallel), and trainer.nnodes * "
            f"trainer.n_gpus_per_node = {run.ranks} are not a multiple of that. Fix: a divisor of {run.ranks}, or "
            "another number of GPUs."
        )
    key, together = ranks_of_a_sequence(run)
    check_shared(
        "actor_rollout_ref.actor.ppo_mini_batch_size",
        run.ppo_mini_batch_size or 0,
        run.ranks,
        rows=run.rollout_n,
        together=together,
        together_key=key,
    )


def _rollout(settings: Settings) -> Iterator[str]:
    name = settings.run.rollout_name
    if settings.pairs.val_files and settings.pairs.val_by == "choice" and name not in ("vllm", "sglang"):
        yield (
            f"actor_rollout_ref.rollout.name is {name!r}, and contextrl.pairs.val_files are asked with sampling "
            "parameters of vLLM or SGLang. Fix: actor_rollout_ref.rollout.name=vllm, or contextrl.pairs.val_by=reply."
        )


def _special_tokens(settings: Settings) -> Iterator[str]:
    """Loops of verl's and the user's own turn messages into tokens by themselves."""
    loop, block = settings.run.default_agent_loop, settings.pairs
    written = settings.objective in ("selection_reward", "question_answering")
    written = written or (block.val_files and block.val_by == "reply")
    if settings.prompt.special_tokens_in_text == "split" and written and loop != "single_turn_agent":
        yield (
            f"actor_rollout_ref.rollout.agent.default_agent_loop is {loop!r}, which makes tokens of pairs by itself, "
            "and contextrl.prompt.special_tokens_in_text is 'split'. Fix: default_agent_loop=single_turn_agent "
            "(ordinary rows may name another as agent_name), or contextrl.prompt.special_tokens_in_text=keep."
        )


def _sampler(settings: Settings) -> Iterator[str]:
    """Where verl replaces groups of rows, another sampler than ours would put pairs in their place."""
    run = settings.run
    replaces = run.replaces_groups or run.replaces_failed
    if settings.objective == "context_awareness" and replaces and SAMPLER not in str(run.sampler):
        yield (
            f"trainer.v1.sampler.custom_sampler.path is {run.sampler!r}, and verl replaces groups of rows "
            "(algorithm.filter_groups or trainer.v1.sampler.sync_refill_failed_groups), so a batch would hold another "
            f"number of pairs. Fix: trainer.v1.sampler.custom_sampler.path=pkg://{SAMPLER} "
            "trainer.v1.sampler.custom_sampler.name=replay_buffer."
        )


def _registration(settings: Settings) -> Iterator[str]:
    """Without it the workers know neither the engine nor the agent loops."""
    named = settings.run.external_lib or []
    if REGISTER not in named:
        yield (
            f"actor_rollout_ref.model.external_lib is {named or None}, and it must name {REGISTER}, which registers "
            "the engine and the agent loops. Fix: actor_rollout_ref.model.external_lib="
            f"[{','.join([REGISTER, *named])}]."
        )


def _data_set(settings: Settings) -> Iterator[str]:
    """A user's own class would train without a pair and without a word."""
    from contextrl_verl.grpo.dataset import MixedTaskDataset

    path, name, key = settings.run.dataset_path, settings.run.dataset_name, "data.custom_cls"
    if path is None:
        yield (
            f"{key}.path is null, so verl's own data set would train without a pair. "
            f"Fix: {key}.path=pkg://contextrl_verl.grpo.dataset {key}.name=MixedTaskDataset."
        )
        return
    found = load_named(path, name, key)
    if not (isinstance(found, type) and issubclass(found, MixedTaskDataset)):
        yield (
            f"{key}.path is {path!r} and {key}.name is {name!r}, a data set that knows of no pairs. Fix: add to that "
            "file `from contextrl_verl.grpo.dataset import MixedTaskDataset` and "
            f"`class {name}WithPairs(MixedTaskDataset, {name}): pass`, and set {key}.name={name}WithPairs "
            "(docs/own_job.md)."
        )


def _rewards(settings: Settings) -> Iterator[str]:
    from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER

    run = settings.run
    path, module, name = run.reward_path, run.manager_path, run.manager_name
    for value, key, now in (
        (run.older_reward_path, "custom_reward_function.path", "reward.custom_reward_function.path"),
        (run.older_manager, "reward_model.reward_manager", "reward.reward_manager.name"),
        (run.older_sandbox_url, "sandbox_fusion.url", "reward.sandbox_fusion.url"),
    ):
        if value is not None:
            yield f"{key} is {value!r}, a key that verl 0.9.1 does not read any more. Fix: {now}={value}."
    if path is not None:
        load_named(path, run.reward_name, "reward.custom_reward_function")
    registered = run.manager_source == "register"
    ours = not registered and MANAGERS in str(module).replace("/", ".")
    by_name = registered or ours
    if by_name and name not in REWARD_MANAGER:
        yield (
            f"reward.reward_manager.name is {name!r}, and verl 0.9.1 knows {', '.join(sorted(REWARD_MANAGER))}. "
            "Fix: one of these."
        )
    elif not by_name:
        load_named(module, name, "reward.reward_manager.module")
    if run.sandbox_url and path == DISPATCH and not ours and not (run.reward_kwargs or {}).get("sandbox_fusion"):
        yield (
            f"reward.sandbox_fusion.url is {run.sandbox_url!r} and reward.reward_manager is not ours, so the sandbox "
            "would not reach the reward functions and code would run on this machine. Fix: "
            "+reward.custom_reward_function.reward_kwargs.sandbox_fusion='${reward.sandbox_fusion}', or leave "
            "reward.reward_manager.source and .module as in our yaml."
        )
    if run.reward_model and path is None and settings.pairs.val_files:
        yield (
            "reward.reward_model.enable is True and reward.custom_reward_function.path is null, so the reward model "
            f"would judge the held-out pairs too. Fix: reward.custom_reward_function.path={DISPATCH} with a function "
            "that asks your reward model in its registry (docs/rewards.md)."
        )
    scored = settings.pairs.val_files or settings.objective in ("selection_reward", "question_answering")
    if scored and not ours and path != DISPATCH:
        yield (
            f"reward.custom_reward_function.path is {path!r} and reward.reward_manager is not ours, so pairs would be "
            "scored by a function that does not know them. Fix: leave reward.reward_manager.source and .module as in "
            "our yaml (its name stays yours to choose), or "
            f"reward.custom_reward_function.path={DISPATCH} with your own function in its registry (docs/rewards.md)."
        )


CHECKS = (_order_of_rows, _ranks, _rollout, _special_tokens, _sampler, _registration, _data_set, _rewards)
