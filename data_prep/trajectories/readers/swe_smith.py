"""SWE-bench/SWE-smith-trajectories: a table with ``instance_id, messages, patch, resolved, traj_id, model``.

``messages`` is a JSON text or a list, in any of the three splits (tool, xml, ticks). Other tables of the same columns
are read as well.
"""

from __future__ import annotations

from typing import Any

from data_prep.trajectories.readers.json_text import loads
from data_prep.trajectories.readers.names import find_instance
from data_prep.trajectories.readers.normal import normal_run
from data_prep.trajectories.readers.turns import patch_of, plain_turns
from data_prep.trajectories.run import AgentRun

NAME = "swe-smith"


def sniff(record: dict[str, Any]) -> bool:
    """Turns, and a patch or an outcome beside them."""
    return "instance_id" in record and "messages" in record and ("patch" in record or "resolved" in record)


def parse(record: dict[str, Any], names: tuple[str, ...]) -> AgentRun:
    """The run; raises UnusableError."""
    instance = find_instance((record.get("instance_id"),), names, record.get("repo"), record.get("base_commit"))
    messages = record.get("messages")
    if isinstance(messages, str):
        messages = loads(messages.encode("utf-8", "replace"))
    turns = plain_turns(messages)
    patch = patch_of(record.get("patch"), "patch")
    resolved = record.get("resolved")
    return normal_run(instance, turns, NAME, issue=record.get("problem_statement"), patch=patch, resolved=resolved)
