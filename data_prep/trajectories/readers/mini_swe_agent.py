"""mini-swe-agent, versions 1 and 2: ``trajectory_format`` is ``mini-swe-agent-1`` or later.

Version 1 stores plain chat turns; version 2 adds ``extra``, tool calls, answers of the Responses API and a last turn of
the role ``exit``. Both keep the patch in ``info.submission``.
"""

from __future__ import annotations

from typing import Any

from data_prep.trajectories.readers.names import find_instance
from data_prep.trajectories.readers.normal import normal_run
from data_prep.trajectories.readers.turns import patch_of, plain_turns
from data_prep.trajectories.readers.types import UnusableError
from data_prep.trajectories.run import AgentRun

NAME = "mini-swe-agent"


def sniff(record: dict[str, Any]) -> bool:
    """Its own format name, or its version and turns."""
    stated = record.get("trajectory_format")
    if isinstance(stated, str):
        return stated.startswith("mini-swe-agent")
    info = record.get("info")
    return isinstance(info, dict) and "mini_version" in info and "messages" in record


def parse(record: dict[str, Any], names: tuple[str, ...]) -> AgentRun:
    """The run; raises UnusableError."""
    info = record.get("info") or {}
    if not isinstance(info, dict):
        raise UnusableError("wrong types", f"info is {type(info).__name__}, not an object")
    instance = find_instance(
        (record.get("instance_id"), info.get("instance_id")), names, record.get("repo"), record.get("base_commit")
    )
    turns = plain_turns(record.get("messages"))
    patch = patch_of(info.get("submission"), "info.submission")
    if str(info.get("exit_status", "")).lower() != "submitted" and "diff --git" not in patch and "--- " not in patch:
        patch = ""  # a run that ended by an error keeps the error's text here
    resolved = record.get("resolved", info.get("resolved"))
    source = str(record.get("trajectory_format") or NAME)
    return normal_run(instance, turns, source, issue=record.get("problem_statement"), patch=patch, resolved=resolved)
