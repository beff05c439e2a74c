"""SWE-agent ``.traj`` files: ``history`` (all turns), ``trajectory`` (one entry a step) and ``info.submission``.

The file does not say which task it is about; its name does. Demonstrations at the head of the history are left out.
"""

from __future__ import annotations

from typing import Any

from data_prep.trajectories.readers.names import find_instance
from data_prep.trajectories.readers.normal import normal_run
from data_prep.trajectories.readers.turns import patch_of, plain_turns
from data_prep.trajectories.readers.types import UnusableError
from data_prep.trajectories.run import AgentRun

NAME = "swe-agent"
_DEMONSTRATION = "Here is a demonstration of how to correctly accomplish this task."


def sniff(record: dict[str, Any]) -> bool:
    """Steps, and the history or the info beside them."""
    return "trajectory" in record and ("history" in record or "info" in record)


def parse(record: dict[str, Any], names: tuple[str, ...]) -> AgentRun:
    """The run; raises UnusableError."""
    info = record.get("info") or {}
    if not isinstance(info, dict):
        raise UnusableError("wrong types", f"info is {type(info).__name__}, not an object")
    instance = find_instance(
        (record.get("instance_id"), info.get("instance_id")), names, record.get("repo"), record.get("base_commit")
    )
    history = record.get("history")
    if not history:
        history = _from_steps(record.get("trajectory"))
    if isinstance(history, list):
        history = [turn for turn in history if not (isinstance(turn, dict) and _is_demonstration(turn))]
    turns = plain_turns(history)
    patch = patch_of(info.get("submission"), "info.submission")
    resolved = record.get("resolved", info.get("resolved"))
    return normal_run(instance, turns, NAME, issue=record.get("problem_statement"), patch=patch, resolved=resolved)


def _is_demonstration(turn: dict[str, Any]) -> bool:
    content = turn.get("content")
    return bool(turn.get("is_demo")) or (isinstance(content, str) and content.startswith(_DEMONSTRATION))


def _from_steps(steps: object) -> list[Any]:
    """Turns from the steps: what the first step was asked, then each answer and what came back."""
    if not isinstance(steps, list):
        raise UnusableError("no messages", "neither history nor trajectory is a list")
    turns: list[Any] = []
    for step in steps:
        if not isinstance(step, dict):
            raise UnusableError("wrong types", f"a step is {type(step).__name__}, not an object")
        asked = step.get("query")
        if not turns and isinstance(asked, list):
            turns.extend(asked)
        said = {"role": "assistant", "content": step.get("response") or step.get("thought")}
        turns.append({**said, "tool_calls": step.get("tool_calls")})
        turns.append({"role": "user", "content": step.get("observation")})
    return turns
