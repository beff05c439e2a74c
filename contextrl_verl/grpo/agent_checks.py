"""What can be wrong with rows of coding agents and with their sandbox, told before Ray starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from contextrl_verl.agents.protocol import wording_of
from contextrl_verl.agents.task import AGENT_NAME, DATA_SOURCE, SweTask
from contextrl_verl.errors import ConfigError, told_by
from contextrl_verl.grpo.limits import ranks_of_a_sequence
from contextrl_verl.grpo.rl_files import json_rows
from contextrl_verl.grpo.swe_agent_loop import ChatTokens, folders_of, task_of
from contextrl_verl.sandbox import InfrastructureError, open_sandbox
from contextrl_verl.settings import Settings

MANAGER = "contextrl_verl.grpo.loop_workers.WatchedLoopManager"


def agent_rows(settings: Settings) -> list[tuple[str, dict[str, Any]]]:
    """File, ``agent_name`` and ``extra_info`` of every row that is an agent's task, by its loop or its data source.

    Files that cannot be read are left to the check of ordinary rows.
    """
    run, found = settings.run, []
    for path in [*(run.train_files or ()), *(run.val_files or ())]:
        for row in _rows(path, run.reward_fn_key, run.default_agent_loop):
            row["agent_name"] = row.get("agent_name") or run.default_agent_loop
            if row["agent_name"] == AGENT_NAME or row.get(run.reward_fn_key) == DATA_SOURCE:
                found.append((path, row))
    return found


def _rows(path: str, source: str, default: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not path.endswith(".parquet"):
            yield from json_rows(path, path)
            return
        file = pq.ParquetFile(path)
        columns = {"agent_name", source} & set(file.schema_arrow.names)
        if "agent_name" in columns or default == AGENT_NAME:
            columns.add("extra_info")  # large, and of no use where no row can be an agent's
        for batch in file.iter_batches(columns=sorted(columns)):
            yield from batch.to_pylist()
    except (ConfigError, OSError, pa.ArrowException):
        return


def check_agents(settings: Settings, rows: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """A paragraph for each thing that episodes on these rows could not work with."""
    run, agent = settings.run, settings.agent
    if run.trainer_mode != "sync":
        yield (
            f"trainer.v1.trainer_mode is {run.trainer_mode!r}, and coding agents ({AGENT_NAME}) were only tried with "
            "the synchronous trainer. Fix: trainer.v1.trainer_mode=sync."
        )
    if run.loop_manager != MANAGER:
        yield (
            f"actor_rollout_ref.rollout.agent.agent_loop_manager_class is {run.loop_manager!r}, and then the job waits "
            f"for ever once a worker that runs episodes dies. Fix: {MANAGER}, or a subclass of it under that name."
        )
    yield from _lengths(settings)
    try:
        wording_of(agent)
        open_sandbox(agent.sandbox, agent.limits)
    except ConfigError as error:
        yield from error.problems
    except InfrastructureError as error:
        yield f"contextrl.agent.sandbox is {agent.sandbox!r}, which fails here ({error}). Fix: contextrl doctor."
    if agent.records is not None and not Path(agent.records).is_absolute():
        yield (
            f"contextrl.agent.records is {agent.records!r}, and workers may start in another folder than this one. "
            f"Fix: contextrl.agent.records={Path(agent.records).resolve()}."
        )
    elif agent.records is not None:
        try:
            Path(agent.records).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            yield f"contextrl.agent.records is {agent.records!r}, which cannot be made: {told_by(error)}. Fix: another."
    yield from _rows_without_loop(settings, rows)


def _lengths(settings: Settings) -> Iterator[str]:
    run, agent = settings.run, settings.agent
    whole = run.max_prompt_length + run.max_response_length
    if 2 * agent.turn_tokens > run.max_response_length:
        yield (
            f"contextrl.agent.turn_tokens is {agent.turn_tokens} and data.max_response_length, which holds all "
            f"turns of an episode and what commands gave back, is {run.max_response_length}: two turns do not fit. "
            "Fix: fewer turn_tokens, or a larger data.max_response_length."
        )
    if run.max_model_len is not None and run.max_model_len < whole:
        yield (
            f"actor_rollout_ref.rollout.max_model_len is {run.max_model_len}, and an episode has up to "
            f"data.max_prompt_length + data.max_response_length = {whole} tokens, beyond which the server fails. Fix: "
            f"actor_rollout_ref.rollout.max_model_len={whole} or more."
        )
    limit, (_, together) = run.ppo_max_token_len_per_gpu, ranks_of_a_sequence(run)
    if run.use_dynamic_bsz and limit and limit * together < whole:
        yield (
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu is {limit}, and verl stops in an update at a longer "
            f"row; episodes have up to {whole} tokens. Fix: at least {-(-whole // together)}."
        )


def _rows_without_loop(settings: Settings, rows: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    without = [path for path, row in rows if row["agent_name"] != AGENT_NAME]
    if without:
        yield (
            f"{without[0]}: {len(without)} rows have the data source {DATA_SOURCE} and no agent_name {AGENT_NAME}, so "
            "verl would ask for one reply and nothing would score it. Fix: write agent_name with every row, as "
            "contextrl tasks swe does."
        )


def tasks_of(settings: Settings, rows: Iterable[tuple[str, dict[str, Any]]]) -> list[SweTask]:
    """The tasks of agent rows; raises ConfigError for rows that are none, and for repositories that are not there."""
    run = settings.run
    folders, tasks, problems = folders_of(run.train_files, run.val_files), [], []
    for path, row in rows:
        try:
            task = task_of((row.get("extra_info") or {}).get("task") or "", folders)
        except ConfigError as error:
            problems.append(f"{path}: {error}")
            continue
        if task.base.folder is not None and not Path(task.base.folder).is_dir():
            problems.append(
                f"{path}: the repository of {task.instance_id} is not at {task.base.folder}. Fix: keep the file and "
                "the folders that contextrl tasks swe wrote together."
            )
        if task.unfit:
            problems.append(f"{path}: {task.unfit}.")
        tasks.append(task)
    if problems:
        more = f" {len(problems) - 1} more rows are like that." if len(problems) > 1 else ""
        raise ConfigError(problems[0] + more)
    return tasks


def check_prompts(settings: Settings, tasks: list[SweTask], tokenizer: Any, processor: Any, model_type: str) -> None:
    """Raises ConfigError if a task's first messages are longer than a prompt may be: nothing of it is ever cut."""
    run, wording = settings.run, wording_of(settings.agent)
    chat = ChatTokens(tokenizer, model_type, run.apply_chat_template_kwargs, processor)
    lengths = {task.instance_id: len(chat.prompt_now(wording.start(task.issue))) for task in tasks}
    long = [name for name, length in lengths.items() if length > run.max_prompt_length]
    if long:
        longest = max(long, key=lengths.__getitem__)
        raise ConfigError(
            f"data.max_prompt_length is {run.max_prompt_length}, and the first messages of {len(long)} of "
            f"{len(lengths)} tasks are longer, those of {longest} with {lengths[longest]} tokens. Fix: "
            f"data.max_prompt_length={lengths[longest]}, or leave these tasks out."
        )
