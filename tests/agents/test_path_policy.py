"""Which edits of a patch count."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextrl_verl.agents.path_policy import Refused, edits, kept, kind_of, paths_of, restored

PROTECTED = {
    "git": [".git/hooks/post-checkout", "a/.GIT/config", ".gitattributes", ".gitmodules"],
    "left over": ["lib/__pycache__/core.txt", ".pytest_cache/v", ".coverage"],
    "binary": ["lib/core.pyc", "x/fast.so"],
    "start of Python": ["x.pth", "sitecustomize.py", "lib/usercustomize.py", "evil-1.dist-info/METADATA", "pyvenv.cfg"],
    "test runner": [
        "conftest.py",
        "lib/conftest.py",
        "pytest.ini",
        ".pytest.ini",
        "tox.ini",
        "setup.cfg",
        "pyproject.toml",
    ],
    "name of the runner": ["pytest.py", "_pytest/runner.py", "pluggy.py", "unittest/__init__.py"],
    "environment": [".env", ".env.local", ".envrc", ".bashrc", ".netrc", "pip.conf", ".config/x"],
    "program": ["python", "bin/python3", "pytest", "scripts/git", "sh"],
    "test": ["tests/data.json", "lib/tests/a.py", "test/x", "test_core.py", "lib/core_test.py", "lib/testing/tool.py"],
}
FREE = [
    "lib/core.py",
    "lib/git.py",
    "docs/python.md",
    "contest.py",
    "latest/x.py",
    "src/_pytest/runner.py",
    "a b.py",
    ".gitignore",
]
ALL = [path for paths in PROTECTED.values() for path in paths] + FREE
_LINES = st.lists(
    st.sampled_from(["x", "", " ", "-- a/conftest.py", "++ b/conftest.py", "@@ -1 +1 @@", "diff --git a/q b/q"])
)


def file_edit(path, lines=("x",)):
    body = "".join(f"+{line}\n" for line in lines)
    hunk = f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n{body}" if lines else ""
    return f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex 0000000..1111111\n{hunk}"


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, paths in PROTECTED.items() for path in paths])
def test_a_protected_path_has_its_kind(kind, path):
    assert kind_of(path) == kind


@pytest.mark.parametrize("path", FREE)
def test_other_paths_are_free(path):
    assert kind_of(path) == ""
    assert (
        kind_of(path, ["lib/*", "*.md", "contest.py", "latest*", "src/*", "a *", ".gitignore"]) == "named by the task"
    )


@given(
    st.lists(st.tuples(st.sampled_from(ALL), _LINES), unique_by=lambda item: item[0]),
    st.sets(st.sampled_from(ALL)),
)
def test_what_is_kept_is_free_or_the_references_and_the_counts_add_up(files, theirs):
    patch = "".join(file_edit(path, lines) for path, lines in files)
    reference = "".join(map(file_edit, sorted(theirs)))
    found = kept(patch, reference)
    paths = paths_of(found.patch)
    assert len(paths) + sum(found.dropped.values()) == len(files)
    assert found.patch == "".join(file_edit(path, lines) for path, lines in files if path in paths)
    for path in paths:
        assert kind_of(path) == "" or (path in theirs and kind_of(path) != "test runner")
    assert set(paths) >= {path for path, _ in files if not kind_of(path)}
    assert kept(found.patch, reference) == (found.patch, {})
    # What the reference says of the runner is applied instead, and nothing else of it.
    assert set(paths_of(restored(reference))) == {path for path in theirs if kind_of(path) == "test runner"}


def test_files_of_the_tests_are_never_the_agents():
    patch = file_edit("lib/testing/tool.py") + file_edit("lib/data.txt")
    assert paths_of(kept(patch, patch).patch) == ["lib/testing/tool.py", "lib/data.txt"]
    assert kept(patch, patch, tests=patch) == ("", {"test": 2})
    assert kept(patch, more=["lib/d*"]) == ("", {"test": 1, "named by the task": 1})


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (file_edit("../x"), "outside"),
        (file_edit("/etc/passwd").replace("b//", "b/../"), "outside"),
        (file_edit("lib/../../x"), "outside"),
        (file_edit("lib/x").replace("100644", "120000"), "symlink"),
        (file_edit("lib/x").replace("new file mode 100644\nindex 0..1", "index 0..1 120000"), "no refusal"),
        (file_edit("lib/x").replace("100644", "160000"), "submodule"),
        ("hello\n", "unreadable"),
        (file_edit("lib/x") + "--- a/conftest.py\n+++ b/conftest.py\n@@ -0,0 +1 @@\n+y\n", "unreadable"),
        (file_edit("lib/x").replace("+1,1", "+1,2"), "unreadable"),
        (file_edit("lib/x").replace("+x", "*x"), "unreadable"),
        (file_edit("lib/x").replace("+++ b/", "+++ "), "unreadable"),
        ("diff --git a/one b/other\nold mode 100644\nnew mode 100755\n", "unreadable"),
    ],
)
def test_a_patch_that_could_leave_the_repository_is_refused(patch, reason):
    if reason == "no refusal":
        assert kept(patch).patch
        return
    with pytest.raises(Refused) as refused:
        kept(patch)
    assert refused.value.reason == reason


def test_a_rename_away_from_a_protected_path_is_dropped_whole():
    patch = "diff --git a/tests/a.py b/lib/a.py\nsimilarity index 100%\nrename from tests/a.py\nrename to lib/a.py\n"
    assert kept(patch) == ("", {"test": 1})


def test_names_are_read_as_git_writes_them(tmp_path):
    names = ["plain.py", "a b.py", "tä.py", 'quo"te.py', "tab\there.py", "日本.py", "empty file", "b b/b b"]
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name.startswith("empty") else "--- a/x\n\r\n\x0cx\x85\u2028\nno end")
    (tmp_path / "raw.bin").write_bytes(b"\0\1")
    subprocess.run([*git, "add", "-A"], check=True)
    diff = subprocess.run([*git, "diff", "--cached", "--no-renames"], check=True, capture_output=True).stdout.decode()
    assert sorted(edit.paths[0] for edit in edits(diff)) == sorted([*names, "raw.bin"])
    found = kept(diff)
    assert found.dropped == {"binary": 1}
    subprocess.run([*git, "apply", "--check", "--reverse", "-"], input=found.patch.encode(), check=True)
