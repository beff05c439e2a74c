"""Read mini-swe-agent trajectories: JSON lines of format `mini-swe-agent-1`, plain, .gz or .xz, one run at a time."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

FORMAT = "mini-swe-agent-1"
SUBMIT_MARKER = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"

_INSTANCE = re.compile(r"(?P<owner>.+?)__(?P<name>.+)-(?P<number>\d+)")
_ISSUE = re.compile(r"<pr_description>\s*(?:Consider the following PR description:\s*)?(.*?)\s*</pr_description>", re.S)


class TrajectoryError(ValueError):
    """A line that is not a run: says which, why, and what to do."""


class Message(BaseModel):
    """One turn."""

    model_config = ConfigDict(frozen=True)

    role: str
    content: str


class AgentRun(BaseModel):
    """One run of the agent on one issue."""

    model_config = ConfigDict(frozen=True)

    instance_id: str
    repository: str
    issue: str
    messages: tuple[Message, ...]
    patch: str
    resolved: bool | None


class _Info(BaseModel):
    submission: str | None = None


class _Line(BaseModel):
    """What of a line is used."""

    instance_id: str
    trajectory_format: str
    messages: tuple[Message, ...]
    info: _Info
    resolved: bool | None = None


def read_runs(path: str | Path) -> Iterator[AgentRun]:
    """Yield the runs of a file in its order, reading one line at a time."""
    path = Path(path)
    with _open(path) as lines:
        number = 0
        while True:
            number += 1
            try:
                line = lines.readline()
            except (EOFError, OSError, lzma.LZMAError, UnicodeDecodeError) as error:
                raise TrajectoryError(
                    f"{path}, line {number}: cannot be read ({error}); copy the file again, the copy is damaged"
                ) from error
            if not line:
                return
            if line.strip():
                yield _run(line, f"{path}, line {number}")


def _open(path: Path) -> IO[str]:
    openers = {".xz": lzma.open, ".gz": gzip.open}
    return openers.get(path.suffix, open)(path, "rt", encoding="utf-8")


def _run(line: str, where: str) -> AgentRun:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise TrajectoryError(f"{where}: not JSON ({error}); write one object a line, or remove the line") from error
    found = record.get("trajectory_format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise TrajectoryError(f"{where}: trajectory_format is {found!r}; convert the run to {FORMAT!r}")
    try:
        parsed = _Line.model_validate(record)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise TrajectoryError(
            f"{where}: field {field}: {problem['msg']}; correct the field or remove the line"
        ) from error
    instance = _INSTANCE.fullmatch(parsed.instance_id)
    if instance is None:
        raise TrajectoryError(f"{where}: instance_id is {parsed.instance_id!r}; write it as owner__repository-number")
    return AgentRun(
        instance_id=parsed.instance_id,
        repository=f"{instance['owner']}/{instance['name']}",
        issue=_issue_of(parsed.messages),
        messages=parsed.messages,
        patch=parsed.info.submission or "",
        resolved=parsed.resolved,
    )


def _issue_of(messages: tuple[Message, ...]) -> str:
    """The issue text of the first user turn; empty when the run shows none."""
    for message in messages:
        if message.role == "user":
            found = _ISSUE.search(message.content)
            return found.group(1) if found else ""
    return ""
