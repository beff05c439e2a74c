"""The readers, places and replay on real runs, where they are at hand."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from data_prep.trajectories.edited_symbols import touched
from data_prep.trajectories.readers import open_source
from data_prep.trajectories.repo_state import replayed_patch
from data_prep.trajectories.run import AgentRun

SHARED = Path(__file__).parents[3] / "shared" / "data" / "swebench_trajectories_dev.jsonl.xz"
SOURCE = Path(os.environ.get("CONTEXTRL_TRAJECTORIES", SHARED))


@pytest.fixture(scope="module")
def runs() -> list[AgentRun]:
    if not SOURCE.exists():
        pytest.skip(f"{SOURCE} is not here; set CONTEXTRL_TRAJECTORIES to a file of real runs")
    return [one.run for one in open_source(SOURCE)]


def test_every_run_is_read_whole(runs):
    assert all(isinstance(run, AgentRun) for run in runs)
    if SOURCE == SHARED:
        assert len(runs) == 231
        assert {run.repository for run in runs} == {"django/django"}
        assert Counter(run.outcome for run in runs) == {"resolved": 179, "unresolved": 52}
    for run in runs:
        assert run.patch.startswith("diff --git")
        assert run.issue
        assert len(run.messages) > 4
        assert len({run.run_id for run in runs}) == len(runs)


def test_every_patch_edits_a_place_and_most_a_known_function(runs, capsys):
    places = {run.run_id: touched(run.patch, run) for run in runs}
    assert all(places.values())
    kinds = Counter((place.kind, place.how) for found in places.values() for place in found)
    functions = sum(count for (kind, _), count in kinds.items() if kind == "function")
    with capsys.disabled():
        print(f"\nplaces: {sum(kinds.values())} in {len(runs)} runs, {functions} of them functions: {dict(kinds)}")
    assert functions > 0.6 * sum(kinds.values())


def test_headings_never_contradict_the_text(runs, capsys):
    """A heading may know less than the text (the class and not the method), but not something else."""
    agree: Counter[str] = Counter()
    for run in runs:
        by_heading = {(place.file, place.start, place.end): place.symbol for place in touched(run.patch)}
        for place in touched(run.patch, run, exact=True):
            heading = by_heading.get((place.file, place.start, place.end))
            if heading is None or place.how != "lines":
                continue
            less = heading == "" or place.symbol.startswith(heading + ".") or place.symbol.endswith("." + heading)
            verdict = "same" if heading == place.symbol else "knows less" if less else "contradicts"
            agree[f"{place.how}: {verdict}"] += 1
    with capsys.disabled():
        print(f"\nheading against the run's text: {dict(sorted(agree.items()))}")
    assert agree["lines: same"] >= 50
    contradictions = sum(count for verdict, count in agree.items() if verdict.endswith("contradicts"))
    assert contradictions <= 0.01 * sum(agree.values())


def changes(patch: str) -> Counter[str]:
    """Added and removed lines of files that existed; where equal lines may be counted does not matter."""
    found: Counter[str] = Counter()
    path, new = "", False
    for line in patch.splitlines():
        if line.startswith("--- "):
            new = line == "--- /dev/null"
        elif line.startswith("+++ "):
            path = line[4:]
        elif line[:1] in "+-" and line[:1] and not new:
            found[f"{path} {line.rstrip()}"] += 1
    return found


def test_a_replayed_patch_is_the_submitted_one(runs, capsys):
    how: Counter[str] = Counter()
    for run in runs:
        replay = replayed_patch(run)
        same = changes(replay.patch) == changes(run.patch)
        how[replay.how if not replay.patch else f"{replay.how}, {'same' if same else 'other'}"] += 1
    with capsys.disabled():
        print(f"\nreplay: {dict(sorted(how.items()))}")
    found = sum(count for key, count in how.items() if key != "none")
    assert found >= 0.3 * len(runs)
    assert how["shown, other"] + how["replayed, other"] <= 0.05 * found
