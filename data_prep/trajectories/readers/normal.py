"""The last step of every reader: what it found in a record, as a run in the common form."""

from __future__ import annotations

from data_prep.trajectories.readers.names import Instance
from data_prep.trajectories.readers.turns import issue_of
from data_prep.trajectories.run import AgentRun, Message


def normal_run(
    instance: Instance,
    turns: tuple[Message, ...],
    source: str,
    *,
    issue: object = None,
    patch: str = "",
    resolved: object = None,
) -> AgentRun:
    """The run. ``issue`` is what the record states, if anything; ``resolved`` counts only if it is a bool."""
    return AgentRun(
        instance_id=instance.instance_id,
        repository=instance.repository,
        commit=instance.commit,
        issue=issue_of(turns, issue),
        messages=turns,
        patch=patch,
        outcome="unknown" if not isinstance(resolved, bool) else "resolved" if resolved else "unresolved",
        source=source,
        patch_origin="submitted" if patch.strip() else "none",
    )
