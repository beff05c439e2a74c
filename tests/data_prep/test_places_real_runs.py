"""The readers, places and replay on real runs, where they are at hand."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from unidiff import PatchSet

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
    kinds = Counter(place.kind for found in places.values() for place in found)
    functions = kinds["function"]
    with capsys.disabled():
        print(f"\nplaces: {sum(kinds.values())} in {len(runs)} runs, {functions} of them functions: {dict(kinds)}")
    assert functions > 0.6 * sum(kinds.values())


def test_headings_never_contradict_the_text(runs, capsys):
    """A heading may know less than the text (the class and not the method), but not something else."""
    agree: Counter[str] = Counter()
    for run in runs:
        for part in map(str, PatchSet(run.patch)):
            # A heading that could be a method's settles nothing, so that the text is always asked.
            asked = re.sub(r"(?m)^(@@ [^@]* @@ (?:async )?def \w+\()", r"\1self, ", part)
            by_text = [place.symbol for place in touched(asked, run)]
            for heading in (place.symbol for place in touched(part)):
                less = any(name.startswith(f"{heading}.") or name.endswith(f".{heading}") for name in by_text)
                agree["same" if heading in by_text else "knows less" if less or not heading else "contradicts"] += 1
    with capsys.disabled():
        print(f"\nheading against the run's text: {dict(sorted(agree.items()))}")
    assert agree["same"] >= 50
    assert agree["contradicts"] <= 0.01 * agree.total()


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
        patch = replayed_patch(run)
        how["none" if not patch else "same" if changes(patch) == changes(run.patch) else "other"] += 1
    with capsys.disabled():
        print(f"\nreplay: {dict(sorted(how.items()))}")
    found = how["same"] + how["other"]
    assert found >= 0.3 * len(runs)
    assert how["other"] <= 0.05 * found
