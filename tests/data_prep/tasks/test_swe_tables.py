"""Rows of public tables as instances: every set's columns, damaged rows, ids of tests."""

from __future__ import annotations

import json

import pytest
from small_repository import FIX, MUST, RIGHT, TESTS, WRONG, bench_row

from data_prep.common.funnel import Funnel
from data_prep.images.sources.base import RowRejected
from data_prep.tasks.swe_table_tasks import _asked, _place
from data_prep.tasks.swe_tables import TABLES, file_diff

BUG = FIX.replace(
    "-    return width + height\n+    return width * height", "-    return width * height\n+    return width + height"
)


def read(name, row):
    table = TABLES[name]
    assert set(table.columns) <= row.keys()
    return table.read(dict.fromkeys((*table.columns, *table.optional)) | row)


def test_swe_smiths_patch_is_the_bug_and_its_reverse_the_reference():
    row = {
        "instance_id": "ann__shapes.0123abcd.func_pm__1", "repo": "swesmith/ann__shapes.0123abcd", "patch": BUG,
        "problem_statement": "wrong", "FAIL_TO_PASS": [MUST], "PASS_TO_PASS": ["tests/test_zero.py::test_zero"],
        "image_name": "swebench/swesmith.x86_64.ann_1776_shapes.0123abcd",
    }  # fmt: skip
    found = read("swe_smith", row)
    assert (found.bug, found.reference) == (BUG, FIX)
    assert (found.commit, found.tests, found.must) == ("", "", (MUST,))
    assert found.image == row["image_name"]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("swe_bench", "docker.io/swebench/sweb.eval.x86_64.ann_1776_shapes-1:latest"),
        ("swe_gym", "docker.io/xingyaoww/sweb.eval.x86_64.ann_s_shapes-1:latest"),
        ("swe_rebench", ""),
    ],
)
def test_tables_of_pull_requests_name_commit_tests_and_image(name, image):
    found = read(name, bench_row("c0ffee"))
    assert (found.commit, found.bug, found.reference, found.tests) == ("c0ffee", "", FIX, TESTS)
    assert (found.must, found.image, found.command) == ((MUST,), image, "")


@pytest.mark.parametrize("config", [{"test_cmd": "pytest -rA"}, json.dumps({"test_cmd": ["pytest -rA"]})])
def test_swe_rebench_says_how_to_test(config):
    found = read("swe_rebench", bench_row("c", install_config=config, docker_image="own/image:1"))
    assert (found.command, found.image) == ("pytest -rA", "own/image:1")


def r2e_row(**changed):
    files = [
        {"header": {"file": {"path": "shapes/box.py"}}, "old_file_content": WRONG, "new_file_content": RIGHT},
        {"header": {"file": {"path": "tests/test_box.py"}}, "old_file_content": "", "new_file_content": "x"},
    ]
    return {
        "repo_name": "shapes", "docker_image": "ns/shapes_final:abc", "commit_hash": "abc",
        "parsed_commit_content": json.dumps({"file_diffs": files}), "problem_statement": "wrong",
        "expected_output_json": json.dumps({"TestBox.test_area": "PASSED", "TestBox.test_old": "FAILED"}), **changed,
    }  # fmt: skip


def test_r2e_gyms_change_is_made_of_whole_files_without_its_tests():
    found = read("r2e_gym", r2e_row())
    assert found.reference == FIX
    assert found.must == ("TestBox.test_area",)
    assert "/r2e_tests" in found.hidden
    assert (found.instance_id, found.image) == ("shapes-abc", "ns/shapes_final:abc")


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("swe_bench", bench_row("c", patch=""), "no patch"),
        ("swe_bench", bench_row("c", patch="--- a/x\n+++ b/x\n@@ -1,3 +1 @@\n-a\n"), "the patch cannot be read"),
        ("swe_bench", bench_row("c", problem_statement=None), "no problem_statement"),
        ("swe_bench", bench_row("c", FAIL_TO_PASS="{"), "the tests are no list of names"),
        ("swe_rebench", bench_row("c", install_config="{"), "install_config is no JSON object"),
        ("r2e_gym", r2e_row(expected_output_json="[]"), "expected_output_json is no JSON object"),
        ("r2e_gym", r2e_row(parsed_commit_content='{"file_diffs": [{}]}'), "the commit's files cannot be read"),
        ("r2e_gym", r2e_row(parsed_commit_content="{}"), "the commit changes nothing but tests"),
    ],
)
def test_a_damaged_row_is_rejected_with_its_reason(name, row, reason):
    with pytest.raises(RowRejected) as caught:
        read(name, row)
    assert caught.value.reason == reason


def test_ids_that_were_cut_at_blanks_are_noticed_and_counted():
    ids = Funnel().stage("test ids", "ids")
    names = (MUST, MUST, "t.py::test_x[a", "b]", "t.py::test_y[a b]", "test_z (app.tests.Case)", "t.py")
    assert _asked(TABLES["swe_bench"], names, ids) == [MUST, "t.py::test_y[a b]", "t.py"]
    assert ids.dropped == {"cut in its middle": 2, "not an id of pytest's": 1, "there twice": 1}
    assert (ids.entered, ids.left) == (7, 3)


@pytest.mark.parametrize(
    ("old", "new"), [("a\nb\n", "a\nc\n"), ("", "new\n"), ("gone\n", ""), ("a\nb", "a\nb\n"), ("a\n", "a\nb")]
)
def test_a_diff_of_whole_files_applies(old, new, tmp_path):
    from small_repository import git

    git(tmp_path, "init", "-q")
    (tmp_path / "d").mkdir()
    if old:
        (tmp_path / "d/f.txt").write_text(old)
    (tmp_path / "patch").write_text(file_diff("d/f.txt", old, new))
    git(tmp_path, "apply", "patch")
    there = tmp_path / "d/f.txt"
    assert (there.read_text() if there.exists() else "") == new


def test_checkouts_and_images_are_found_by_their_names_and_nowhere_else(tmp_path):
    for name in ("ann__shapes", "ns_shapes_final_abc", "shapes"):
        (tmp_path / "here" / name).mkdir(parents=True)
    here = str(tmp_path / "here")
    assert _place(here, "ann__shapes-1", "ann__shapes").name == "ann__shapes"
    assert _place(here, "", "ns/shapes_final:abc").name == "ns_shapes_final_abc"
    assert _place(here, "other/shapes:latest").name == "shapes"
    for name in ("../here", "/etc", "..", "docker.io/nothing:1"):
        with pytest.raises(RowRejected, match="no checkout or image here"):
            _place(here, name)
