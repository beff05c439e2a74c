"""Patches for runs that come without one: replayed from the run's edits, or joined from a table of tasks.

A table of SWE-smith tasks holds patches that *make* the bug, so the fix is the reverse. A joined patch is the task's
reference, not what this run did; a replayed one is what the run did and is therefore tried first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_prep.common.reverse_diff import DiffError, reverse_diff
from data_prep.trajectories.readers.files import raw_records
from data_prep.trajectories.readers.records import UnusableError, record_of
from data_prep.trajectories.run import AgentRun, TrajectoryError


def load_task_patches(path: str | Path) -> dict[str, str]:
    """Instance id to fix, from a file or folder (parquet or JSON lines) with the columns ``instance_id`` and ``patch``.

    The fix is empty where a patch cannot be reversed.

    Raises:
        TrajectoryError: a part cannot be read, or nothing in it has the two columns.
    """
    fixes: dict[str, str] = {}
    for raw in raw_records(path):
        try:
            record = record_of(raw)
        except UnusableError as error:
            problem = f"{path}: {raw.location.file}, record {raw.location.record}: {': '.join(error.args)}"
            raise TrajectoryError(f"{problem}; repair the table of tasks or leave it out") from error
        instance, patch = record.get("instance_id"), record.get("patch")
        if isinstance(instance, str) and isinstance(patch, str) and patch.strip():
            try:
                fixes[instance] = reverse_diff(patch)
            except DiffError:
                fixes[instance] = ""
    if not fixes:
        raise TrajectoryError(f"{path} has no record with instance_id and patch; give a table of SWE-smith tasks")
    return fixes


def with_patch(run: AgentRun, tasks: Mapping[str, str] | None, replay: bool) -> AgentRun:
    """The run with a recovered patch, if it has none and one can be had; raises UnusableError."""
    if run.patch.strip():
        return run
    if replay:
        from data_prep.trajectories.repo_state import replayed_patch  # needs unidiff, which plain reading does not

        if patch := replayed_patch(run).patch:
            return run.model_copy(update={"patch": patch, "patch_origin": "replayed"})
    patch = (tasks or {}).get(run.instance_id)
    if patch == "":
        detail = f"that of {run.instance_id} cannot be reversed; repair it in the table of tasks"
        raise UnusableError("damaged task patch", detail)
    return run.model_copy(update={"patch": patch, "patch_origin": "joined"}) if patch else run
