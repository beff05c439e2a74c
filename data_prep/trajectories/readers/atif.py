"""ATIF, the Agent Trajectory Interchange Format: ``schema_version`` is ``ATIF-v1.0`` or later, turns are ``steps``.

A step of the agent holds its message, its tool calls and what they returned: here one turn of the agent and one of the
user. The format has no place for the task and the patch; they are looked for at the top, in ``extra`` and in the names
of file and folders. Steps of subagents stored elsewhere are not read. Unknown fields are passed over, so that versions
older and newer than the published models are read too.
"""

from __future__ import annotations

from typing import Any

from data_prep.trajectories.readers.names import find_instance
from data_prep.trajectories.readers.normal import normal_run
from data_prep.trajectories.readers.turns import call_text, checked, patch_of, text_of
from data_prep.trajectories.readers.types import UnusableError
from data_prep.trajectories.run import AgentRun, Message

NAME = "atif"
_ROLES = {"system": "system", "user": "user", "agent": "assistant"}
_PATCHES = ("patch", "submission", "model_patch", "final_diff")


def sniff(record: dict[str, Any]) -> bool:
    """Its own version mark."""
    version = record.get("schema_version")
    return isinstance(version, str) and version.upper().startswith("ATIF")


def parse(record: dict[str, Any], names: tuple[str, ...]) -> AgentRun:
    """The run; raises UnusableError."""
    extra = record.get("extra") or {}
    if not isinstance(extra, dict):
        raise UnusableError("wrong types", f"extra is {type(extra).__name__}, not an object")
    both = (record, extra)
    ids = [place.get(key) for key in ("instance_id", "task_id", "task_name") for place in both]
    ids += [record.get("trajectory_id"), record.get("session_id")]
    known = _first(both, ("repo", "repository")), _first(both, ("base_commit", "commit"))
    instance = find_instance([value for value in ids if value], names, *known)
    steps = record.get("steps")
    if not steps:
        raise UnusableError("no messages", "steps is missing or empty")
    if not isinstance(steps, list):
        raise UnusableError("wrong types", f"steps is {type(steps).__name__}, not a list")
    turns = checked(tuple(turn for index, step in enumerate(steps) for turn in _turns(step, f"step {index + 1}")))
    patch = patch_of(_first(both, _PATCHES), "patch")
    resolved = _first(both, ("resolved",))
    source = str(record.get("schema_version") or NAME)
    issue = _first(both, ("problem_statement", "issue"))
    return normal_run(instance, turns, source, issue=issue, patch=patch, resolved=resolved)


def _first(places: tuple[dict[str, Any], ...], keys: tuple[str, ...]) -> object:
    return next((place[key] for key in keys for place in places if place.get(key) is not None), None)


def _turns(step: object, where: str) -> list[Message]:
    if not isinstance(step, dict):
        raise UnusableError("wrong types", f"{where} is {type(step).__name__}, not an object")
    source = step.get("source")
    role = _ROLES.get(source) if isinstance(source, str) else None
    if role is None:
        raise UnusableError("wrong types", f"{where}: source is {str(source)[:40]!r}")
    text = text_of(step.get("message"), where)
    thought = step.get("reasoning_content")
    if not text.strip() and isinstance(thought, str):
        text = thought
    parts = [text] if text.strip() else []
    for call in _list(step.get("tool_calls"), f"{where}: tool_calls"):
        parts.append(call_text(call.get("function_name"), call.get("arguments")))
    turns = [Message(role=role, content="\n\n".join(parts))]
    observation = step.get("observation")
    if observation is not None:
        if not isinstance(observation, dict):
            raise UnusableError("wrong types", f"{where}: observation is {type(observation).__name__}")
        for result in _list(observation.get("results"), f"{where}: observation.results"):
            turns.append(Message(role="user", content=text_of(result.get("content"), where)))
    return turns


def _list(value: object, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UnusableError("wrong types", f"{where} is not a list of objects")
    return value
