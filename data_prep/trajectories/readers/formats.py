"""The formats of runs, each a way to know a record and to say where things stand in it.

mini-swe-agent, versions 1 and 2: plain chat turns, then tool calls, answers of the Responses API and a last turn of the
role ``exit``. ATIF, the Agent Trajectory Interchange Format: turns are ``steps``; it has no place for task and patch,
which are looked for at the top, in ``extra`` and in the names of file and folders; steps of subagents stored elsewhere
are not read. SWE-agent ``.traj``: ``history``, or ``trajectory`` with one entry a step. The splits tool, xml and ticks
of SWE-bench/SWE-smith-trajectories and other tables of its columns. Kwai-Klear's 66k table, ids and ``messages`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from data_prep.trajectories.readers.json_text import loads
from data_prep.trajectories.readers.names import find_instance
from data_prep.trajectories.readers.turns import as_object, issue_of, plain_turns
from data_prep.trajectories.readers.types import UnusableError
from data_prep.trajectories.run import AgentRun

Record = dict[str, Any]
_DEMONSTRATION = "Here is a demonstration of how to correctly accomplish this task."


class Format(NamedTuple):
    """One format.

    Attributes:
        sniff: whether a record is of it, by a mark of its own.
        parse: the run of a record and the names of its file (see ``RawRecord``); raises UnusableError.
    """

    sniff: Callable[[Record], bool]
    parse: Callable[[Record, tuple[str, ...]], AgentRun]


def make_run(
    record: Record,
    names: tuple[str, ...],
    source: object,
    messages: object,
    *,
    ids: Iterable[object] = (),
    patch: object = None,
    resolved: object = None,
) -> AgentRun:
    """The run in the common form; raises UnusableError.

    Args:
        record: may say ``instance_id``, ``repo``, ``base_commit`` and ``problem_statement``.
        messages: list of chat messages.
        ids: what else may be the instance's id, best first.
        patch: text or nothing.
        resolved: counts only if it is a bool.
    """
    stated = (record.get("instance_id"), *ids)
    instance = find_instance(stated, names, record.get("repo"), record.get("base_commit"))
    turns = plain_turns(messages)
    if patch is not None and not isinstance(patch, str):
        raise UnusableError("wrong types", f"the patch is {type(patch).__name__}, not text")
    return AgentRun(
        **instance._asdict(),
        issue=issue_of(turns, record.get("problem_statement")),
        messages=turns,
        patch=patch or "",
        outcome="unknown" if not isinstance(resolved, bool) else "resolved" if resolved else "unresolved",
        source=str(source),
        patch_origin="submitted" if patch and patch.strip() else "none",
    )


def _is_mini(record: Record) -> bool:
    stated = record.get("trajectory_format")
    if isinstance(stated, str):
        return stated.startswith("mini-swe-agent")
    info = record.get("info")
    return isinstance(info, dict) and "mini_version" in info and "messages" in record


def _mini(record: Record, names: tuple[str, ...]) -> AgentRun:
    info = as_object(record.get("info") or {}, "info")
    patch = info.get("submission")
    if isinstance(patch, str) and str(info.get("exit_status", "")).lower() != "submitted":
        if "diff --git" not in patch and "--- " not in patch:
            patch = ""  # a run that ended by an error keeps the error's text here
    return make_run(
        record, names, record.get("trajectory_format") or "mini-swe-agent", record.get("messages"),
        ids=[info.get("instance_id")], patch=patch, resolved=record.get("resolved", info.get("resolved")),
    )  # fmt: skip


def _is_atif(record: Record) -> bool:
    version = record.get("schema_version")
    return isinstance(version, str) and version.upper().startswith("ATIF")


def _atif(record: Record, names: tuple[str, ...]) -> AgentRun:
    extra = as_object(record.get("extra") or {}, "extra")
    known = {**extra, **{name: value for name, value in record.items() if value is not None}}

    def first(*keys: str) -> object:
        return next((known[key] for key in keys if known.get(key) is not None), None)

    said = {
        "instance_id": known.get("instance_id"),
        "repo": first("repo", "repository"),
        "base_commit": first("base_commit", "commit"),
        "problem_statement": first("problem_statement", "issue"),
    }
    messages = known.get("steps")
    if isinstance(messages, list):
        messages = [turn for index, step in enumerate(messages, 1) for turn in _atif_turns(step, f"step {index}")]
    return make_run(
        said, names, record.get("schema_version") or "atif", messages,
        ids=[known.get(key) for key in ("task_id", "task_name", "trajectory_id", "session_id")],
        patch=first("patch", "submission", "model_patch", "final_diff"), resolved=known.get("resolved"),
    )  # fmt: skip


def _atif_turns(step: object, where: str) -> list[Record]:
    """What the step says, with its tool calls, and what they returned."""
    step = as_object(step, where)
    calls = [
        {"name": c.get("function_name"), "arguments": c.get("arguments")} for c in _objects(step, "tool_calls", where)
    ]
    said = {"role": step.get("source"), "content": step.get("message"), "tool_calls": calls}
    turns = [{**said, "reasoning_content": step.get("reasoning_content")}]
    seen = as_object(step.get("observation") or {}, f"{where}: observation")
    return turns + [{"role": "tool", "content": result.get("content")} for result in _objects(seen, "results", where)]


def _objects(record: Record, key: str, where: str) -> list[Record]:
    value = record.get(key)
    if value is not None and (not isinstance(value, list) or not all(isinstance(item, dict) for item in value)):
        raise UnusableError("wrong types", f"{where}: {key} is not a list of objects")
    return value or []


def _is_swe_agent(record: Record) -> bool:
    return "trajectory" in record and ("history" in record or "info" in record)


def _swe_agent(record: Record, names: tuple[str, ...]) -> AgentRun:
    info = as_object(record.get("info") or {}, "info")
    history = record.get("history") or _from_steps(record.get("trajectory"))
    if isinstance(history, list):
        history = [turn for turn in history if not (isinstance(turn, dict) and _is_demonstration(turn))]
    return make_run(
        record, names, "swe-agent", history,
        ids=[info.get("instance_id")], patch=info.get("submission"),
        resolved=record.get("resolved", info.get("resolved")),
    )  # fmt: skip


def _is_demonstration(turn: Record) -> bool:
    content = turn.get("content")
    return bool(turn.get("is_demo")) or (isinstance(content, str) and content.startswith(_DEMONSTRATION))


def _from_steps(steps: object) -> list[Any]:
    """Turns from the steps: what the first step was asked, then each answer and what came back."""
    if not isinstance(steps, list):
        raise UnusableError("no messages", "neither history nor trajectory is a list")
    turns: list[Any] = []
    for step in steps:
        step = as_object(step, "a step")
        asked = step.get("query")
        if not turns and isinstance(asked, list):
            turns.extend(asked)
        said = {"role": "assistant", "content": step.get("response") or step.get("thought")}
        turns += [{**said, "tool_calls": step.get("tool_calls")}, {"role": "user", "content": step.get("observation")}]
    return turns


def _is_table(record: Record) -> bool:
    return "instance_id" in record and "messages" in record


def _is_swe_smith(record: Record) -> bool:
    return _is_table(record) and ("patch" in record or "resolved" in record)


def _swe_smith(record: Record, names: tuple[str, ...]) -> AgentRun:
    messages = record.get("messages")
    if isinstance(messages, str):
        messages = loads(messages.encode("utf-8", "replace"))
    patch, resolved = record.get("patch"), record.get("resolved")
    return make_run(record, names, "swe-smith", messages, patch=patch, resolved=resolved)


def _is_klear(record: Record) -> bool:
    return _is_table(record) and not any(key in record for key in ("info", "trajectory", "history", "steps"))


def _klear(record: Record, names: tuple[str, ...]) -> AgentRun:
    return make_run(record, names, "klear", record.get("messages"))


# In the order in which `auto` asks them: marks of their own first, tables known by their columns last.
FORMATS: dict[str, Format] = {
    "mini-swe-agent": Format(_is_mini, _mini),
    "atif": Format(_is_atif, _atif),
    "swe-agent": Format(_is_swe_agent, _swe_agent),
    "swe-smith": Format(_is_swe_smith, _swe_smith),
    "klear": Format(_is_klear, _klear),
}
