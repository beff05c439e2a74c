"""The audit on pairs of real runs, where there are any."""

import os
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("unidiff")

from contextrl_verl.pairs import parse_pair
from data_prep.audit import audit
from data_prep.trajectories.mini_swe_agent import read_runs
from data_prep.trajectories.simple_pairs import simple_pairs


def test_simple_pairs_of_real_runs(repository):
    default = repository.parent / "shared" / "data" / "swebench_trajectories_dev.jsonl.xz"
    path = Path(os.environ.get("CONTEXTRL_TRAJECTORIES", default))
    if not path.is_file():
        pytest.skip(f"no real runs: set CONTEXTRL_TRAJECTORIES to a file of them ({path} is absent)")
    rows, _ = simple_pairs(read_runs(path), 8000)
    for row in rows:
        for context in (row["supporting"], *row["confounders"]):
            context["messages"] = [dict(message) for message in context["messages"]]
    groups = ["lengths", "turns", "masks", "formatting", "outcome", "context alone", "position", "identity"]
    result = audit((parse_pair(row, str(n)) for n, row in enumerate(rows)), groups=groups, repeats=1)
    assert result.domains[0].directions.both == 1
    assert result.all_contain_chance
    # Every pair names files and functions of its patch in the run that made it.
    assert result.row("overlap: tf-idf").accuracy > 0.8
