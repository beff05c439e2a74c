"""The answer of a pair: which hunks of a patch count, and how they are shown."""

from __future__ import annotations

import difflib
import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_run, write_runs
from run_records import ISSUE, PATCH

from contextrl_verl.pairs.files import PairFile
from data_prep.trajectories.answer import HUNKS, MOST_CHARS, Hunk, cleaned, common_hunks, hunks_of, shown
from data_prep.trajectories.candidates import CascadeSettings
from data_prep.trajectories.edited_symbols import PatchError, Place
from data_prep.trajectories.prepare import PrepareSettings, prepare
from data_prep.trajectories.run import AgentRun
from reward_fns.question_answering import changed_lines

SETUP = """diff --git a/setup.py b/setup.py
index 1111111..2222222 100644
--- a/setup.py
+++ b/setup.py
@@ -4,2 +4,3 @@
 setup(
+    install_requires=["old-library<2"],
 )
"""
SCRATCH = """diff --git a/pkg/try_it.py b/pkg/try_it.py
new file mode 100644
index 0000000..3333333
--- /dev/null
+++ b/pkg/try_it.py
@@ -0,0 +1,1 @@
+print("does it work now?")
"""
TEST = """diff --git a/tests/test_calc.py b/tests/test_calc.py
--- a/tests/test_calc.py
+++ b/tests/test_calc.py
@@ -1,1 +1,2 @@
 import calc
+assert calc.twice(2) == 4
"""
BINARY = """diff --git a/pkg/x.bin b/pkg/x.bin
index 1..2 100644
Binary files a/pkg/x.bin and b/pkg/x.bin differ
"""
RENAME = """diff --git a/pkg/old.py b/pkg/new.py
similarity index 100%
rename from pkg/old.py
rename to pkg/new.py
"""


def run_of(patch: str, instance: str = "owner__name-1", repository: str = "owner/name") -> AgentRun:
    return AgentRun(instance_id=instance, repository=repository, issue=ISSUE, messages=(), patch=patch, source="made")


def keys(patch: str, **of: str) -> list[int]:
    return [hunk.key for hunk in hunks_of(run_of(patch, **of))]


def test_what_counts_of_a_patch():
    fix, setup, scratch, test = hunks_of(run_of(PATCH + SETUP + SCRATCH + TEST))
    assert fix.places == (Place("pkg/calc.py", "Calc.twice", "function"),)
    assert setup.places == (Place("setup.py", "", "module"),)
    assert len(fix.added) == len(setup.added) == 1
    # neither what the run made for itself nor a test is code
    assert (scratch.scratch, scratch.places, scratch.added) == (True, (), frozenset())
    assert (test.scratch, test.places, test.added) == (False, (), frozenset())
    assert len({fix.key, setup.key, scratch.key, test.key}) == 4


def test_a_created_file_that_the_reference_has_is_no_scratch_work():
    (hunk,) = hunks_of(run_of(SCRATCH), SCRATCH.replace("does it work now?", "yes"))
    assert not hunk.scratch
    assert hunk.added
    for reference in (PATCH, "", "no patch"):
        (hunk,) = hunks_of(run_of(SCRATCH), reference)
        assert hunk.scratch


def test_hunks_are_common_when_three_instances_of_a_repository_have_them():
    (key,) = keys(SETUP)
    assert keys(re.sub("@@ -4,2 .4,3 @@", "@@ -9,2 +9,3 @@", SETUP)) == [key], "wherever the lines stand"
    assert keys(SETUP, repository="owner/other") != [key]
    assert keys(SETUP.replace("setup.py", "pkg/setup.py")) != [key]
    for instances, common in ((["a", "b", "c"], True), (["a", "b", "a", "b", "b"], False), ([], False)):
        assert (key in common_hunks((instance, {key, 7}) for instance in instances)) == common
    assert common_hunks([(instance, {key}) for instance in "abc"]) == set(), "it is the whole answer of each"


def test_hunks_are_stored_in_light_records_as_they_are():
    hunks = hunks_of(run_of(PATCH + SCRATCH))
    rows = pa.array([[hunk.to_row() for hunk in hunks]], HUNKS).to_pylist()[0]
    assert [Hunk.of_row(row) for row in rows] == hunks


def test_left_out_hunks_take_their_files_along():
    patch = SETUP + PATCH + SCRATCH + TEST + BINARY + RENAME
    setup, fix, scratch, test = keys(patch)
    text = cleaned(patch, "owner/name", {setup, scratch})
    assert keys(text) == [fix, test]
    assert "setup" not in text
    assert "does it work" not in text
    assert "Binary" not in text
    assert "rename to pkg/new.py" in text
    assert changed_lines(cleaned(patch, "owner/name", ())) == changed_lines(patch)
    assert cleaned(SETUP, "owner/name", {setup}) == ""


def test_the_shown_answer_has_neither_line_numbers_nor_digests():
    text = shown(PATCH.replace("@@\n", "@@ class Calc:\n") + SETUP)
    assert "@@ ... @@ class Calc:\n" in text
    assert "\n@@ ... @@\n setup(\n" in text
    assert not re.search(r"@@ -|^index|1111111", text, re.M)
    assert "--- a/setup.py\n+++ b/setup.py\n" in text
    assert changed_lines(text) == changed_lines(PATCH + SETUP)


def test_prose_around_a_patch_is_not_shown():
    assert shown(f"From: somebody\nSubject: it\n\n{SETUP}") == shown(SETUP)


def test_a_long_answer_is_shown_in_part_code_first():
    many = [f'@@ -{n},1 +{n},2 @@ def f{n}():\n a\n+    value_{n} = "{"x" * 200}"\n' for n in range(1, 90)]
    code = "--- a/pkg/a.py\n+++ b/pkg/a.py\n" + "".join(many)
    tests = TEST.replace("== 4", f"== 4, {'y' * 400!r}")
    text = shown(tests + code)
    assert MOST_CHARS - 400 < len(text) < MOST_CHARS + 80
    assert "test_calc" not in text
    found = [int(number) for number in re.findall(r"^\+    value_(\d+)", text, re.M)]
    assert found == sorted(found)
    assert found[0] == 1
    left_out = int(re.search(r"\[\.\.\. (\d+) hunks or parts of hunks left out \.\.\.\]\n$", text)[1])
    assert left_out == 90 - len(found)
    assert shown(tests + code, limit=10**6).count("value_") == 89
    assert "left out" not in shown(tests + code, limit=10**6)


@pytest.mark.parametrize("line", ["short = 1", "long = " + "x" * 5000])
def test_of_a_hunk_that_is_too_long_its_start_is_shown(line):
    text = shown("--- a/a.py\n+++ b/a.py\n@@ -0,0 +1,999 @@\n" + f"+{line}\n" * 999 + TEST, limit=700)
    first, *changed, last, _ = text.removeprefix("--- a/a.py\n+++ b/a.py\n").split("\n")
    assert (first, last) == ("@@ ... @@", "[... 2 hunks or parts of hunks left out ...]")
    assert 600 < len(text) < 760
    assert set(changed) == {f"+{line}"[: len(changed[0])]}
    assert len(changed) == 1 or changed[0] == f"+{line}"


@pytest.mark.parametrize("patch", ["", "no patch"])
def test_what_is_no_patch_has_no_answer(patch):
    with pytest.raises(PatchError):
        shown(patch)


def test_environment_edits_and_scratch_files_are_in_no_answer(tmp_path):
    records = [made_run(number) for number in range(14)]
    for number, record in enumerate(records):
        patch = "" if number == 13 else record["info"]["submission"]
        patch += SCRATCH if number == 0 else SETUP
        record["info"]["submission"] = record["messages"][-1]["content"] = patch
    records[13]["messages"][6]["content"] = "```bash\nsed -i '5i install_requires=[]' setup.py\n```"
    settings = PrepareSettings(
        issue=("related",), overlap_cap=1, cascade=CascadeSettings(commit="any", level="file", related=(0.0, 1.0))
    )
    summary = prepare(write_runs(tmp_path / "runs.jsonl", records), tmp_path / "p.parquet", settings, workers=1)
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert stages["answer"]["in"] == 14
    assert sum(stages["answer"]["dropped"].values()) == 1
    # setup.py alone makes no two patches alike
    assert "patches alike" not in stages["different patch"]["dropped"]
    pairs = list(PairFile(tmp_path / "p.parquet"))
    assert summary["hunks_left_out"] >= len(pairs) > 10
    for pair in pairs:
        assert "repaired_alpha" in pair.answer
        assert "setup.py" not in pair.answer
        assert "does it work" not in pair.answer
        shown_turns = "".join(turn.content for context in pair.contexts for turn in context.messages)
        # yet all of the patch is hidden
        assert "old-library" not in shown_turns
        assert "does it work" not in shown_turns


lines = st.lists(st.sampled_from(["a", "bb", "  c", "", "-- sql", "++ x", "@@ ... @@", "\tif x:"]), max_size=12)


@given(lines, lines)
def test_what_is_shown_changes_the_same_lines(before, after):
    patch = "".join(f"{line}\n" for line in difflib.unified_diff(before, after, "a/x.py", "b/x.py", lineterm=""))
    if patch:
        assert changed_lines(shown(patch)) == changed_lines(patch)
        assert keys(cleaned(patch, "owner/name", ())) == keys(patch)
