"""Keys of a job that cannot be right together, told from its config alone.

A check is a function of the settings that yields one paragraph a problem. :data:`CHECKS` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.limits import check_joint_loss, ranks_of_a_sequence
from contextrl_verl.patches.cpu.environment import cpu_selected
from contextrl_verl.settings import Settings

REGISTER, MANAGERS = "contextrl_verl.grpo.register", "contextrl_verl.grpo.reward_managers"
SAMPLER = "contextrl_verl.grpo.replay_buffer"
DISPATCH = "pkg://reward_fns.dispatch"


def listed(value: Any) -> list[str]:
    """A key of one path or several as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]


def load_named(path: str | None, name: str | None, key: str) -> Any:
    """The object that ``<key>.path`` and ``<key>.name`` name, loaded as verl's workers will.

    Raises:
        ConfigError: there is no such file, module or name, or it fails while it is loaded.
    """
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
    train, val = listed(run.train_files), listed(run.val_files)
    if train == val:
        yield (
            f"data.train_files and data.val_files are the same list {train}; verl does not tell a data set which of "
            "the two it serves. Fix: give validation its own file, data.val_files=[...] (a copy will do)."
        )
    if settings.uses_pairs and run.gen_batch_size not in (None, run.train_batch_size):
        yield (
            f"data.gen_batch_size is {run.gen_batch_size} and data.train_batch_size is {run.train_batch_size}: the "
            "number of pairs is exact in a whole batch. Fix: leave data.gen_batch_size unset."
        )


def _ranks(settings: Settings) -> Iterator[str]:
    """verl notices in the workers, when models are loaded."""
    extra = settings.run.model_extra or {}
    gpus, nodes, mini = extra.get("n_gpus_per_node"), extra.get("nnodes"), extra.get("ppo_mini_batch_size")
    if not gpus or not nodes:
        return
    ranks = int(gpus) * int(nodes)
    served = 1
    for name in ("tensor_model_parallel_size", "pipeline_model_parallel_size", "data_parallel_size"):
        served *= int(extra.get(name) or 1)
    if ranks % served:
        yield (
            f"actor_rollout_ref.rollout.tensor_model_parallel_size is {extra.get('tensor_model_parallel_size')}: a "
            f"rollout server takes {served} GPUs (tensor * pipeline * data parallel), and trainer.nnodes * "
            f"trainer.n_gpus_per_node = {ranks} are not a multiple of that. Fix: a divisor of {ranks}, or another "
            "number of GPUs."
        )
    key, together = ranks_of_a_sequence(extra)
    if ranks % together:
        yield (
            f"{key} is {together}, and trainer.nnodes * trainer.n_gpus_per_node = {ranks} ranks cannot be divided into "
            f"groups of {together}. Fix: a divisor of {ranks}, or another number of GPUs."
        )
        return
    groups = ranks // together
    if mini and int(mini) * settings.run.rollout_n % groups:
        shared = f", {together} to a sequence" if together > 1 else ""
        yield (
            f"actor_rollout_ref.actor.ppo_mini_batch_size is {mini}, with rollout.n={settings.run.rollout_n} "
            f"{int(mini) * settings.run.rollout_n} rows, which trainer.nnodes * trainer.n_gpus_per_node = {ranks} "
            f"ranks{shared} cannot share equally. Fix: a mini-batch whose rows are a multiple of {groups}, or another "
            "number of GPUs."
        )


def _platform(settings: Settings) -> Iterator[str]:
    if cpu_selected() and (settings.run.model_extra or {}).get("strategy") == "fsdp":
        yield (
            "actor_rollout_ref.actor.strategy is 'fsdp' and VERL_PLATFORM is cpu: verl loads FSDP1 by a device index, "
            "which a CPU has not. Fix: actor_rollout_ref.actor.strategy=fsdp2."
        )


def _rollout(settings: Settings) -> Iterator[str]:
    name = (settings.run.model_extra or {}).get("rollout_name")
    if settings.pairs.val_files and settings.pairs.val_by == "choice" and name not in ("vllm", "sglang"):
        yield (
            f"actor_rollout_ref.rollout.name is {name!r}, and contextrl.pairs.val_files are asked with sampling "
            "parameters of vLLM or SGLang. Fix: actor_rollout_ref.rollout.name=vllm, or contextrl.pairs.val_by=reply."
        )


def _sampler(settings: Settings) -> Iterator[str]:
    """Where verl replaces groups of rows, another sampler than ours would put pairs in their place."""
    extra = settings.run.model_extra or {}
    replaces = extra.get("replaces_groups") or extra.get("replaces_failed")
    if settings.objective == "context_awareness" and replaces and SAMPLER not in str(extra.get("sampler")):
        yield (
            f"trainer.v1.sampler.custom_sampler.path is {extra.get('sampler')!r}, and verl replaces groups of rows "
            "(algorithm.filter_groups or trainer.v1.sampler.sync_refill_failed_groups), so a batch would hold another "
            f"number of pairs. Fix: trainer.v1.sampler.custom_sampler.path=pkg://{SAMPLER} "
            "trainer.v1.sampler.custom_sampler.name=replay_buffer."
        )


def _registration(settings: Settings) -> Iterator[str]:
    """Without it the workers know neither the engine nor the agent loops."""
    named = listed((settings.run.model_extra or {}).get("external_lib"))
    if not any(name == REGISTER or _imports_ours(name) for name in named):
        yield (
            f"actor_rollout_ref.model.external_lib is {named or None}, and it must name {REGISTER}, which registers "
            "the engine and the agent loops. Fix: actor_rollout_ref.model.external_lib="
            f"[{','.join([REGISTER, *named])}]."
        )


def _imports_ours(module: str) -> bool:
    """Whether a module of the user's own imports the registrations, told from its text: importing it is verl's part."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return False
    return re.search(r"contextrl_verl(\.register\b| import .*\bregister\b)", Path(spec.origin).read_text()) is not None


def _data_set(settings: Settings) -> Iterator[str]:
    """A user's own class would train without a pair and without a word."""
    from contextrl_verl.grpo.dataset import MixedTaskDataset

    extra = settings.run.model_extra or {}
    path, name, key = extra.get("dataset_path"), extra.get("dataset_name"), "data.custom_cls"
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


# Name in the block `contextrl.run`, verl's older key, and the one that it reads.
_OLDER_KEYS = (
    ("older_reward_path", "custom_reward_function.path", "reward.custom_reward_function.path"),
    ("older_manager", "reward_model.reward_manager", "reward.reward_manager.name"),
    ("older_sandbox_url", "sandbox_fusion.url", "reward.sandbox_fusion.url"),
)


def _rewards(settings: Settings) -> Iterator[str]:
    from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER

    extra = settings.run.model_extra or {}
    path, module = extra.get("reward_path"), extra.get("manager_path")
    for older, key, now in _OLDER_KEYS:
        if extra.get(older) is not None:
            yield f"{key} is {extra[older]!r}, a key that verl 0.9.1 does not read any more. Fix: {now}={extra[older]}."
    if path is not None:
        load_named(path, extra.get("reward_name"), "reward.custom_reward_function")
    registered = extra.get("manager_source") == "register"
    ours = not registered and MANAGERS in str(module).replace("/", ".")
    by_name, name = registered or ours, extra.get("manager_name")
    if by_name and name not in REWARD_MANAGER:
        yield (
            f"reward.reward_manager.name is {name!r}, and verl 0.9.1 knows {', '.join(sorted(REWARD_MANAGER))}. "
            "Fix: one of these."
        )
    elif not by_name:
        load_named(module, name, "reward.reward_manager.module")
    if extra.get("sandbox_url") and path == DISPATCH and not ours:
        if not (extra.get("reward_kwargs") or {}).get("sandbox_fusion"):
            yield (
                f"reward.sandbox_fusion.url is {extra['sandbox_url']!r} and reward.reward_manager is not ours, so the "
                "sandbox would not reach the reward functions and code would run on this machine. Fix: "
                "+reward.custom_reward_function.reward_kwargs.sandbox_fusion='${reward.sandbox_fusion}', or leave "
                "reward.reward_manager.source and .module as in our yaml."
            )
    if extra.get("reward_model") and path is None and settings.pairs.val_files:
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


def _joint_loss(settings: Settings) -> tuple[()]:
    if settings.objective == "context_awareness":
        check_joint_loss(settings.run.model_extra or {})
    return ()


CHECKS = (_order_of_rows, _ranks, _platform, _rollout, _sampler, _registration, _data_set, _rewards, _joint_loss)


def key_problems(settings: Settings) -> list[str]:
    """What :data:`CHECKS` find, a paragraph each."""
    problems: list[str] = []
    for check in CHECKS:
        try:
            problems += check(settings)
        except ConfigError as error:
            problems += error.problems
    return problems
