"""Runs by where they lie, for the steps after the first pass."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

from data_prep.trajectories.readers import load_task_patches, read_at
from data_prep.trajectories.run import AgentRun, TrajectoryError


class RunStore:
    """Reads runs again; the last few stay in memory, for neighbours in a list of groups share them.

    Args:
        options: ``source`` and the options of the readers, as given to the first pass.
        keep: runs held in memory.
    """

    def __init__(self, options: dict[str, Any], keep: int = 16) -> None:
        self._options, self._keep = options, keep
        self._tasks = load_task_patches(options["tasks"]) if options["tasks"] else None
        self._known: OrderedDict[str, AgentRun] = OrderedDict()

    def get(self, member: dict[str, Any]) -> AgentRun:
        """The run of ``{"run_id", "location"}`` or ``{"run_id", "spool", "offset"}``.

        Raises:
            TrajectoryError: another run lies there now, or none.
        """
        name = member["run_id"]
        if name not in self._known:
            self._known[name] = self._read(member)
            if len(self._known) > self._keep:
                self._known.popitem(last=False)
        self._known.move_to_end(name)
        return self._known[name]

    def _read(self, member: dict[str, Any]) -> AgentRun:
        if "spool" in member:
            with open(member["spool"], "rb") as stream:
                stream.seek(member["offset"])
                run = AgentRun.model_validate_json(stream.readline())
        else:
            options = {name: self._options[name] for name in ("format", "max_record_bytes", "replay")}
            run = read_at(self._options["source"], json.loads(member["location"]), tasks=self._tasks, **options)
        if run.run_id != member["run_id"]:
            raise TrajectoryError(f"expected the run {member['run_id']} and found {run.run_id}")
        return run
