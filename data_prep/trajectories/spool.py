"""Runs that lie in compressed files or tables, written out once so that the second pass can seek to them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import Done
from data_prep.trajectories.readers import load_task_patches, read_many
from data_prep.trajectories.readers.types import Location, Rejected
from data_prep.trajectories.run import AgentRun, TrajectoryError
from data_prep.trajectories.run_summary import Light


def plan_spool(source: Path, options: dict[str, Any], lights: list[Light]) -> list[dict[str, Any]]:
    """A payload for every file that has no random access and holds wanted runs."""
    by_file: dict[str, list[str]] = defaultdict(list)
    for light in lights:
        at = Location(*json.loads(light.location))
        if at.compression != "none" or at.layout == "parquet":
            by_file[at.file].append(light.location)
    return [
        {"source": str(source), **options, "locations": sorted(locations)} for _, locations in sorted(by_file.items())
    ]


def spool_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Write the wanted runs of one file as JSON lines."""
    tasks = load_task_patches(payload["tasks"]) if payload["tasks"] else None
    found = read_many(
        payload["source"],
        [json.loads(location) for location in payload["locations"]],
        payload["format"],
        max_record_bytes=payload["max_record_bytes"],
        tasks=tasks,
        replay=payload["replay"],
    )
    with path.open("wb") as stream:
        for location, run in found:
            if isinstance(run, Rejected):
                raise TrajectoryError(f"{location.file}, record {location.record}: {run.reason}; the file changed")
            stream.write(run.model_dump_json().encode() + b"\n")
    return Funnel()


def spool_index(done: list[Done]) -> dict[str, dict[str, Any]]:
    """Where each spooled run stands: ``{run_id: {"spool": file, "offset": byte}}``."""
    index: dict[str, dict[str, Any]] = {}
    for part in done:
        offset = 0
        with part.path.open("rb") as stream:
            for line in stream:
                index[AgentRun.model_validate_json(line).run_id] = {"spool": str(part.path), "offset": offset}
                offset += len(line)
    return index
