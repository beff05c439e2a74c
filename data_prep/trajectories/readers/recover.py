"""Patches for runs that come without one: replayed from the run's edits, or joined from a table of tasks.

A table of SWE-smith tasks holds patches that *make* the bug, so the fix is the reverse. A joined patch is the task's
reference, not what this run did; a replayed one is what the run did and is therefore tried first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_prep.trajectories.readers.files import file_records, list_files
from data_prep.trajectories.readers.json_text import loads
from data_prep.trajectories.readers.types import MAX_RECORD_BYTES, Rejected, UnusableError
from data_prep.trajectories.run import AgentRun, TrajectoryError


def load_task_patches(path: str | Path, reverse: bool = True) -> dict[str, str]:
    """Instance id to fix, from a file or folder (parquet or JSON lines) with the columns ``instance_id`` and ``patch``.

    Args:
        reverse: the table's patches make the bug (SWE-smith); False where they fix it (SWE-bench).

    Raises:
        TrajectoryError: a part cannot be read, or nothing in it has the two columns.
    """
    fixes: dict[str, str] = {}
    for file, name in list_files(path):
        for raw in file_records(file, name, MAX_RECORD_BYTES):
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
                fixes[instance] = reverse_patch(patch) if reverse else patch
    if not fixes:
        raise TrajectoryError(f"{path} has no record with instance_id and patch; give a table of SWE-smith tasks")
    return fixes


def reverse_patch(patch: str) -> str:
    """The diff that undoes a unified diff.

    Raises:
        TrajectoryError: a hunk has no proper heading.
    """
    lines: list[str] = []
    removed: list[str] = []
    added: list[str] = []
    left_old = left_new = 0

    def flush() -> None:
        lines.extend(removed)
        lines.extend(added)
        removed.clear()
        added.clear()

    into = added
    pending: str | None = None
    for line in patch.splitlines(keepends=True):
        if left_old > 0 or left_new > 0:
            mark = line[:1]
            if mark == "-":
                added.append("+" + line[1:])
                left_old, into = left_old - 1, added
            elif mark == "+":
                removed.append("-" + line[1:])
                left_new, into = left_new - 1, removed
            elif mark == "\\":
                into.append(line)
            else:
                flush()
                lines.append(line)
                left_old, left_new, into = left_old - 1, left_new - 1, lines
            continue
        if line.startswith("\\"):
            into.append(line)
            continue
        flush()
        if line.startswith("@@"):
            counts = _heading(line)
            left_old, left_new = counts[1], counts[3]
            old, new = f"{counts[2]},{counts[3]}", f"{counts[0]},{counts[1]}"
            lines.append(f"@@ -{old} +{new} @@" + line.split("@@", 2)[2])
        elif line.startswith("--- "):
            pending = line[4:]
        elif line.startswith("+++ ") and pending is not None:
            lines += [f"--- {_swap_side(line[4:])}", f"+++ {_swap_side(pending)}"]
            pending = None
        elif line.startswith("new file mode"):
            lines.append("deleted file" + line[len("new file") :])
        elif line.startswith("deleted file mode"):
            lines.append("new file" + line[len("deleted file") :])
        elif line.startswith(("rename from ", "rename to ")):
            lines.append(("rename to " if line.startswith("rename from ") else "rename from ") + line.split(" ", 2)[2])
        elif not line.startswith("index "):
            lines.append(line)
    flush()
    return "".join(lines)


def _heading(line: str) -> tuple[int, int, int, int]:
    try:
        old, new = line.split("@@")[1].split()
        numbers = [[int(part) for part in side[1:].split(",")] for side in (old, new)]
    except ValueError as error:
        raise TrajectoryError(f"{line.strip()[:80]!r} is no heading of a hunk; repair the patch") from error
    (old_start, *old_count), (new_start, *new_count) = numbers
    return old_start, old_count[0] if old_count else 1, new_start, new_count[0] if new_count else 1


def _swap_side(name: str) -> str:
    return {"a/": "b/", "b/": "a/"}.get(name[:2], name[:2]) + name[2:]


def with_patch(run: AgentRun, tasks: Mapping[str, str] | None, replay: bool) -> AgentRun:
    """The run with a recovered patch, if it has none and one can be had."""
    if run.patch.strip():
        return run
    if replay:
        from data_prep.trajectories.replay import replayed_patch  # needs unidiff, which plain reading does not

        patch = replayed_patch(run).patch
        if patch:
            return run.model_copy(update={"patch": patch, "patch_origin": "replayed"})
    if tasks and tasks.get(run.instance_id):
        return run.model_copy(update={"patch": tasks[run.instance_id], "patch_origin": "joined"})
    return run
