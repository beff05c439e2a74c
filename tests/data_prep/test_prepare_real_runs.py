"""The whole preparation on real runs, where they are at hand: enough pairs, no leak, no shortcut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from leak_check import leaks_left

from contextrl_verl.pairs.files import PairFile
from data_prep.audit.run import audit
from data_prep.trajectories.candidates import CascadeSettings
from data_prep.trajectories.prepare import PrepareSettings, prepare
from data_prep.trajectories.readers import open_source

SHARED = Path(__file__).parents[3] / "shared" / "data" / "swebench_trajectories_dev.jsonl.xz"
SOURCE = Path(os.environ.get("CONTEXTRL_TRAJECTORIES", SHARED))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    if not SOURCE.exists():
        pytest.skip(f"{SOURCE} is not here; set CONTEXTRL_TRAJECTORIES to a file of real runs")
    out = tmp_path_factory.mktemp("real") / "pairs.parquet"
    summary = prepare(SOURCE, out, PrepareSettings(cascade=CascadeSettings(commit="any")))
    return summary, list(PairFile(out)), {one.run.run_id: one.run for one in open_source(SOURCE)}


def turns(messages):
    return [(message.role, message.content) for message in messages]


def test_counts_add_up_and_pairs_come_in_both_directions(made):
    summary, pairs, runs = made
    for stage in summary["stages"]:
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values()), stage
    assert summary["runs_read"] == len(runs)
    assert summary["pairs"] == len(pairs) >= (100 if SOURCE == SHARED else 1)
    ids = {pair.pair_id for pair in pairs}
    for pair in pairs:
        assert "+".join(reversed(pair.pair_id.split("+"))) in ids


def test_no_line_of_either_patch_is_left(made):
    _, pairs, runs = made
    for pair in pairs:
        own = runs[pair.provenance["supporting"]["run_id"]]
        other = runs[pair.provenance["confounders"][0]["run_id"]]
        for run, context in ((own, pair.supporting), (other, pair.confounders[0])):
            for patch in (own.patch, other.patch):
                assert leaks_left(turns(context.messages), turns(run.messages), patch, run.issue) == []


def test_the_audit_finds_no_shortcut(made):
    _, pairs, _ = made
    result = audit(pairs)
    assert result.passed, result.shortcuts
    assert result.all_contain_chance
