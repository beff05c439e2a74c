"""Folders that tasks start from: exactly the files of one state, one commit, nothing of the repository's own code."""

from __future__ import annotations

import pytest
from small_repository import FIX, RIGHT, WRONG, git, make_repository, write

from data_prep.images.sources.base import RowRejected
from data_prep.tasks.swe_bases import from_checkout, from_folder, make_base


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    return folder, *make_repository(folder)


def test_a_base_is_one_commit_of_the_state_before(checkout, tmp_path):
    folder, before, after = checkout
    name, commit = make_base(tmp_path / "bases", from_checkout(folder, before))
    base = tmp_path / "bases" / name
    assert (base / "shapes/box.py").read_text() == WRONG
    assert git(base, "rev-list", "--all", "--count") == "1"
    assert git(base, "rev-parse", "HEAD") == commit
    assert git(base, "status", "--porcelain") == ""
    assert "product" not in git(base, "log", "--all", "--format=%B%an")
    # Nor is an object left that the repair could be read from.
    objects = git(base, "cat-file", "--batch-all-objects", "--batch-check")
    assert after not in objects
    assert git(folder, "rev-parse", f"{after}:shapes/box.py") not in objects


def test_a_state_has_one_folder_however_often_it_is_made(checkout, tmp_path):
    folder, before, _ = checkout
    made = {make_base(tmp_path / "bases", from_checkout(folder, before)) for _ in range(3)}
    assert len(made) == 1
    assert [path.name for path in (tmp_path / "bases").iterdir()] == [made.pop()[0]]


def test_the_head_is_taken_without_what_was_changed_since_and_a_bug_put_on_top(checkout, tmp_path):
    folder, before, _ = checkout
    write(folder, {"shapes/box.py": "scribbled", "untracked": "x"})
    git(folder, "pack-refs", "--all")
    bug = FIX.replace("-    return width + height\n+    return width * height",
                      "-    return width * height\n+    return width + height")  # fmt: skip
    name, commit = make_base(tmp_path / "bases", from_checkout(folder, ""), bug=bug)
    base = tmp_path / "bases" / name
    assert (base / "shapes/box.py").read_text() == WRONG
    assert not (base / "untracked").exists()
    # What the bug was put into is not in the history either.
    assert RIGHT not in git(base, "log", "-p", "--all")
    assert make_base(tmp_path / "bases", from_checkout(folder, before))[1] == commit


def test_nothing_of_a_strange_repository_is_run_and_nothing_left_out(checkout, tmp_path):
    folder, *_ = checkout
    seen = tmp_path / "ran"
    script = f"#!/bin/sh\ntouch {seen}\nexec cat\n"
    write(folder, {"ignored.txt": "kept", ".gitignore": "ignored.txt\n",
                   ".gitattributes": "*.py filter=evil export-ignore\n"})  # fmt: skip
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "-m", "attributes")
    for hook in ("post-checkout", "fsmonitor"):
        write(folder, {f".git/hooks/{hook}": script})
        (folder / ".git/hooks" / hook).chmod(0o755)
    write(
        folder, {".git/config": f'[filter "evil"]\nsmudge = touch {seen}\n[core]\nfsmonitor = .git/hooks/fsmonitor\n'}
    )
    name, _ = make_base(tmp_path / "bases", from_checkout(folder, ""))
    base = tmp_path / "bases" / name
    assert not seen.exists()
    # Neither export-ignore nor .gitignore keeps a file of the commit out.
    assert (base / "shapes/box.py").read_text() == RIGHT
    assert "ignored.txt" in git(base, "ls-files")
    assert list((base / ".git" / "hooks").glob("*")) == []


def test_an_images_folder_keeps_what_was_built_and_loses_its_history(checkout, tmp_path):
    folder, *_ = checkout
    write(folder, {".gitignore": "*.so\n", "shapes/fast.so": "built", "r2e_tests/test_1.py": "x"})
    name, _ = make_base(tmp_path / "bases", from_folder(folder, "r2e_tests"), name="image")
    base = tmp_path / "bases" / name
    assert (base / "shapes/fast.so").read_text() == "built"
    assert "shapes/fast.so" not in git(base, "ls-files")
    assert git(base, "rev-list", "--all", "--count") == "1"
    assert not (base / "r2e_tests").exists()


def test_a_folder_within_another_repository_is_no_part_of_it(checkout, tmp_path):
    folder, before, _ = checkout
    # git apply says nothing and does nothing in a folder that a repository above it does not name.
    name, _ = make_base(folder / "bases", from_checkout(folder, before), bug=FIX)
    assert (folder / "bases" / name / "shapes/box.py").read_text() == RIGHT


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda at: make_base(at / "b", from_checkout(at / "checkout", "0" * 40)), "the checkout has no such commit"),
        (lambda at: make_base(at / "b", from_checkout(at / "checkout", "--help")), "the checkout has no such commit"),
        (lambda at: make_base(at / "b", from_checkout(at, "")), "the checkout is no git repository"),
        (lambda at: make_base(at / "b", from_folder(at / "nowhere"), name="i"), "the image holds no repository"),
        (
            lambda at: make_base(at / "b", from_checkout(at / "checkout", ""), bug=FIX),
            "the bug cannot be put in",
        ),
    ],
)
def test_what_cannot_be_had_is_a_reason_and_leaves_nothing(checkout, tmp_path, make, reason):
    with pytest.raises(RowRejected) as caught:
        make(tmp_path)
    assert caught.value.reason == reason
    assert list((tmp_path / "b").iterdir()) == []
