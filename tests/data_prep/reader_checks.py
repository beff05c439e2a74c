"""Reading a file whose content is known: all runs of it, or the one reject."""

from __future__ import annotations

from pathlib import Path

from data_prep.trajectories.readers import open_source
from data_prep.trajectories.readers.records import Rejected
from data_prep.trajectories.run import AgentRun

COMPRESSIONS = ["none", "gz", "xz", "zst"]
ENDINGS = {"none": "", "gz": ".gz", "xz": ".xz", "zst": ".zst"}


def runs_of(path: Path, **options) -> list[AgentRun]:
    found = [located.run for located in open_source(path, **options)]
    assert all(isinstance(run, AgentRun) for run in found), found
    return found


def only_reject(path: Path, **options) -> Rejected:
    (located,) = open_source(path, **options)
    assert isinstance(located.run, Rejected)
    return located.run
