"""Read runs of coding agents from files of any known format, as one stream in one form.

A new format is one entry of :data:`data_prep.trajectories.readers.formats.FORMATS`. A run without a patch can get one
by replaying its own edits, or else from a table of SWE-smith tasks, whose patches *make* the bug, so that the fix is
the reverse: the task's reference, not what this run did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.common.reverse_diff import DiffError, reverse_diff
from data_prep.trajectories.readers.files import names_of, raw_records
from data_prep.trajectories.readers.formats import FORMATS, make_run
from data_prep.trajectories.readers.records import (
    MAX_RECORD_BYTES,
    Located,
    RawRecord,
    Rejected,
    UnusableError,
    record_of,
    without_nul,
)
from data_prep.trajectories.run import AgentRun, TrajectoryError


def open_source(
    path: str | Path,
    format: str = "auto",
    *,
    max_record_bytes: int = MAX_RECORD_BYTES,
    tasks: Mapping[str, str] | None = None,
    replay: bool = False,
) -> Iterator[Located]:
    """All records of a file or folder in a fixed order: runs, and rejects with reasons.

    Args:
        format: one of :data:`FORMATS`, or ``auto``: each record says by its fields what it is.
        max_record_bytes: a larger record is rejected; memory is bounded by a few times this.
        tasks: fixes by instance id (:func:`load_task_patches`) for runs without a patch.
        replay: recover missing patches from the run's own edits.

    Raises:
        TrajectoryError: the path or the format does not exist, or the folder holds no file of runs. Never for bad data.
    """
    check_format(format)
    for raw in raw_records(path, max_record_bytes):
        yield Located(raw.location, parse_record(raw, format, tasks=tasks, replay=replay))


def check_format(format: str) -> None:
    """Raises TrajectoryError unless the format is ``auto`` or one of :data:`FORMATS`."""
    if format != "auto" and format not in FORMATS:
        raise TrajectoryError(f"format is {format!r}; use auto or one of {', '.join(FORMATS)}")


def parse_record(
    raw: RawRecord, format: str = "auto", *, tasks: Mapping[str, str] | None = None, replay: bool = False
) -> AgentRun | Rejected:
    """The run in a record, or why there is none."""
    try:
        record = record_of(raw)
        name = _sniffed(record) if format == "auto" else format
        run = make_run(FORMATS[name].common(record), name, names_of(raw.location.file))
        return run if run.patch.strip() else _with_patch(run, tasks or {}, replay)
    except UnusableError as error:
        return Rejected(raw.location, *error.args)


def _sniffed(record: dict[str, Any]) -> str:
    for name, known in FORMATS.items():
        if known.sniff(record):
            return name
    keys = ", ".join(sorted(str(key)[:30] for key in record)[:8]) or "none"
    raise UnusableError("unknown format", f"fields: {keys}; known formats: {', '.join(FORMATS)}")


def _with_patch(run: AgentRun, tasks: Mapping[str, str], replay: bool) -> AgentRun:
    if replay:
        from data_prep.trajectories.repo_state import replayed_patch  # needs unidiff, which plain reading does not

        if patch := replayed_patch(run):
            return run.model_copy(update={"patch": patch, "patch_origin": "replayed"})
    patch = tasks.get(run.instance_id)
    if patch == "":
        raise UnusableError("damaged task patch", f"that of {run.instance_id} cannot be reversed; repair the table")
    return run.model_copy(update={"patch": patch, "patch_origin": "joined"}) if patch else run


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
                fixes[instance] = reverse_diff(without_nul(patch))
            except DiffError:
                fixes[instance] = ""
    if not fixes:
        raise TrajectoryError(f"{path} has no record with instance_id and patch; give a table of SWE-smith tasks")
    return fixes
