"""Kwai-Klear/SWE-smith-mini_swe_agent_plus-trajectories-66k: a table with ``instance_id`` and ``messages``, no more.

It has no patch: it is replayed from the run's own edits or joined from a table of tasks (see ``readers.recover``).
"""

from __future__ import annotations

from typing import Any

from data_prep.trajectories.readers.names import find_instance
from data_prep.trajectories.readers.normal import normal_run
from data_prep.trajectories.readers.turns import plain_turns
from data_prep.trajectories.run import AgentRun

NAME = "klear"


def sniff(record: dict[str, Any]) -> bool:
    """An id and turns, and none of the fields by which the other formats are known."""
    others = ("info", "trajectory", "history", "steps", "patch", "resolved")
    return "instance_id" in record and "messages" in record and not any(key in record for key in others)


def parse(record: dict[str, Any], names: tuple[str, ...]) -> AgentRun:
    """The run; raises UnusableError."""
    instance = find_instance((record.get("instance_id"),), names, record.get("repo"), record.get("base_commit"))
    turns = plain_turns(record.get("messages"))
    return normal_run(instance, turns, NAME, issue=record.get("problem_statement"))
