"""Patches for runs that come without one: replayed from the run's edits, or joined from a table of tasks.

A table of SWE-smith tasks holds patches that *make* the bug, so the fix is the reverse. A joined patch is the task's
reference, not what this run did; a replayed one is what the run did and is therefore tried first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_prep.common.reverse_diff import DiffError, reverse_diff
from data_prep.trajectories.readers.files import Span, list_files, span_records
from data_prep.trajectories.readers.json_text import loads
from data_prep.trajectories.readers.types import MAX_RECORD_BYTES, Rejected, UnusableError
from data_prep.trajectories.run import AgentRun, TrajectoryError


def load_task_patches(path: str | Path, reverse: bool = True) -> dict[str, str]:
    """Instance id to fix, from a file or folder (parquet or JSON lines) with the columns ``instance_id`` and ``patch``.

    Args:
        reverse: the table's patches make the bug (SWE-smith); False where they fix it (SWE-bench). The fix is empty
            where a patch cannot be reversed.

    Raises:
        TrajectoryError: a part cannot be read, or nothing in it has the two columns.
    """
    fixes: dict[str, str] = {}
    for file, name in list_files(path):
        for raw in span_records(file, Span(name), MAX_RECORD_BYTES):
            where = f"{file}, record {raw.location.record}"
            data = raw.data
            if isinstance(data, bytes):
                try:
                    data = loads(data)
                except UnusableError as error:
                    raise TrajectoryError(f"{where}: {error}; repair the table of tasks or leave it out") from error
            if isinstance(data, Rejected):
                raise TrajectoryError(f"{where}: {data.reason} ({data.detail}); repair the table or leave it out")
            instance, patch = (data.get("instance_id"), data.get("patch")) if isinstance(data, dict) else (None, None)
            if isinstance(instance, str) and isinstance(patch, str) and patch.strip():
                fixes[instance] = _reversed(patch) if reverse else patch
    if not fixes:
        raise TrajectoryError(f"{path} has no record with instance_id and patch; give a table of SWE-smith tasks")
    return fixes


def _reversed(patch: str) -> str:
    try:
        return reverse_diff(patch)
    except DiffError:
        return ""


def with_patch(run: AgentRun, tasks: Mapping[str, str] | None, replay: bool) -> AgentRun:
    """The run with a recovered patch, if it has none and one can be had; raises UnusableError."""
    if run.patch.strip():
        return run
    if replay:
        from data_prep.trajectories.replay import replayed_patch  # needs unidiff, which plain reading does not

        patch = replayed_patch(run).patch
        if patch:
            return run.model_copy(update={"patch": patch, "patch_origin": "replayed"})
    if tasks and run.instance_id in tasks:
        if not tasks[run.instance_id]:
            detail = f"that of {run.instance_id} cannot be reversed; repair it in the table of tasks"
            raise UnusableError("damaged task patch", detail)
        return run.model_copy(update={"patch": tasks[run.instance_id], "patch_origin": "joined"})
    return run
