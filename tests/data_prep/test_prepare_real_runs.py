"""The whole preparation on real runs, where they are at hand: enough pairs, no leak, no shortcut."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from leak_check import drafts_left, leaks_left, signs_left

from contextrl_verl.pairs.files import PairFile
from data_prep.audit.run import audit
from data_prep.trajectories.candidates import CascadeSettings
from data_prep.trajectories.overlap import baseline, over_cap, scored
from data_prep.trajectories.prepare import PrepareSettings, prepare
from data_prep.trajectories.readers import open_source

SHARED = Path(__file__).parents[3] / "shared" / "data" / "swebench_trajectories_dev.jsonl.xz"
SOURCE = Path(os.environ.get("CONTEXTRL_TRAJECTORIES", SHARED))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    if not SOURCE.exists():
        pytest.skip(f"{SOURCE} is not here; set CONTEXTRL_TRAJECTORIES to a file of real runs")
    out = tmp_path_factory.mktemp("real") / "pairs.parquet"
    # All that the cap would be put on, and enough of what is at chance for it anyway.
    kinds = {"issue": ("related", "counterfactual"), "counterfactuals": 3, "counterfactual_runs": 90, "overlap_cap": 1}
    summary = prepare(SOURCE, out, PrepareSettings(cascade=CascadeSettings(commit="any"), **kinds))
    return summary, list(PairFile(out)), {one.run.run_id: one.run for one in open_source(SOURCE)}


def turns(messages):
    return [(message.role, message.content) for message in messages]


def test_counts_add_up_and_pairs_come_in_both_directions(made):
    summary, pairs, runs = made
    for stage in summary["stages"]:
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values()), stage
    assert summary["runs_read"] == len(runs)
    assert summary["pairs"] == len(pairs)
    sides = Counter()
    for pair in pairs:
        sides[pair.provenance["kind"], pair.supporting.model_dump_json()] += 1
        sides[pair.provenance["kind"], pair.confounders[0].model_dump_json()] -= 1
    assert set(sides.values()) == {0}
    if SOURCE == SHARED:
        # As many as before there were kinds; the cap leaves out the clearest of them.
        assert summary["overlap"]["related"]["pairs"] >= 128


def test_words_in_common_tell_no_more_than_the_cap(made):
    _, pairs, _ = made
    read = scored(pairs)
    assert baseline(read)["counterfactual"]["right"] <= 0.6
    gone = over_cap(read, 0.75)
    left = baseline([one for one in read if one.pair_id not in gone])
    assert max(kind["right"] for kind in left.values()) <= 0.75
    assert left["counterfactual"] == baseline(read)["counterfactual"]
    if SOURCE == SHARED:
        assert left["related"]["pairs"] >= 10


def test_no_line_of_either_patch_is_left(made):
    _, pairs, runs = made
    for pair in pairs:
        if pair.provenance["kind"] == "counterfactual":
            continue  # its answer is no patch
        own = runs[pair.provenance["supporting"]["run_id"]]
        other = runs[pair.provenance["confounders"][0]["run_id"]]
        for run, context in ((own, pair.supporting), (other, pair.confounders[0])):
            for patch in (own.patch, other.patch):
                shown = turns(context.messages)
                left = leaks_left(shown, turns(run.messages), patch, run.issue)
                assert left + signs_left(shown, patch) + drafts_left(shown, patch) == []


def test_the_audit_finds_no_shortcut(made):
    _, pairs, _ = made
    result = audit(pairs)
    assert result.passed, result.shortcuts
    assert result.all_contain_chance


def test_counterfactual_pairs_are_many_and_hold_the_same_words(made):
    summary, pairs, _ = made
    altered = [pair for pair in pairs if pair.provenance["kind"] == "counterfactual"]
    assert len(altered) >= (300 if SOURCE == SHARED else 1)
    assert summary["overlap"]["counterfactual"]["right"] <= 0.6
    for pair in altered:
        texts = (" ".join(text for _, text in turns(context.messages)) for context in pair.contexts)
        one, other = (Counter(re.findall(r"\w+", text)) for text in texts)
        assert one == other
