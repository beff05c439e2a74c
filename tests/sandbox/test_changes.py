"""The patch between two folders: git applies it, and gets the second from the first."""

import os
import shutil
import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from contextrl_verl.sandbox.changes import patch_between

NAMES = st.sampled_from(["a.py", "b c.txt", "d/e.py", "d/é.py", 'q"uote\\.txt', "tab\there", "new\nline"])
LINES = st.lists(
    st.sampled_from(["x = 1", "", " y", "-- z", "++ w", "@@ -1 +1 @@", "diff --git a/x b/x", "é\r"]), max_size=9
)
TEXTS = st.builds(lambda lines, end: "\n".join(lines) + end, LINES, st.sampled_from(["", "\n"]))
FILES = st.dictionaries(NAMES, st.one_of(st.tuples(TEXTS, st.booleans()), st.just("link")), max_size=5)


def write(folder, files):
    folder.mkdir()
    for name, what in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if what == "link":
            path.symlink_to("/where/ever it is")
        else:
            path.write_bytes(what[0].encode())
            path.chmod(0o755 if what[1] else 0o644)


def read(folder):
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[path.name] = os.readlink(path)
        elif path.is_file():
            found[path.name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


@settings(max_examples=40)
@given(before=FILES, after=FILES)
def test_git_applies_the_patch(tmp_path_factory, before, after):
    place = tmp_path_factory.mktemp("patch")
    write(place / "before", before)
    write(place / "after", after)
    patch = patch_between(place / "before", place / "after")
    assert bool(patch) == (read(place / "before") != read(place / "after"))
    if patch:
        applied = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            input=patch.encode(),
            cwd=place / "before",
            capture_output=True,
        )
        assert applied.returncode == 0, (applied.stderr, patch)
    assert read(place / "before") == read(place / "after")
    shutil.rmtree(place)


def test_its_text_is_gits_own(tmp_path):
    write(tmp_path / "a", {"f.py": ("one\ntwo\n", False), "g.py": ("gone\n", False), "m.sh": ("same\n", False)})
    write(tmp_path / "b", {"f.py": ("one\nTWO\n", False), "n w.py": ("new\n", True), "m.sh": ("same\n", True)})
    assert patch_between(tmp_path / "a", tmp_path / "b") == (
        "diff --git a/f.py b/f.py\n--- a/f.py\n+++ b/f.py\n@@ -1,2 +1,2 @@\n one\n-two\n+TWO\n"
        "diff --git a/g.py b/g.py\ndeleted file mode 100644\n--- a/g.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n"
        "diff --git a/m.sh b/m.sh\nold mode 100644\nnew mode 100755\n"
        "diff --git a/n w.py b/n w.py\nnew file mode 100755\n--- /dev/null\n+++ b/n w.py\t\n@@ -0,0 +1 @@\n+new\n"
    )


def test_what_is_only_named_and_what_is_left_out(tmp_path):
    write(tmp_path / "a", {"same.bin": ("\0same", False), "old.bin": ("\0old", False)})
    write(tmp_path / "b", {"same.bin": ("\0same", False), "old.bin": ("\0new", False), "big": ("x" * (2 << 20), False)})
    (tmp_path / "b" / "latin").write_bytes(b"caf\xe9\n")
    os.mkfifo(tmp_path / "b" / "pipe")
    (tmp_path / "b" / "empty folder").mkdir()
    for folder in ("b/.git", "b/sub/.git"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config").write_text("[core]\n")
    assert patch_between(tmp_path / "a", tmp_path / "b").splitlines() == [
        "diff --git a/big b/big",
        "new file mode 100644",
        "Binary files /dev/null and b/big differ",
        "diff --git a/latin b/latin",
        "new file mode 100644",
        "Binary files /dev/null and b/latin differ",
        "diff --git a/old.bin b/old.bin",
        "Binary files a/old.bin and b/old.bin differ",
    ]


def test_files_of_the_folder_tell_git_nothing(tmp_path, monkeypatch):
    """Attributes that call everything binary, a user's settings, and an external diff."""
    write(tmp_path / "a", {"f.py": ("one\n", False), "0": ("* -diff\n", False)})
    write(tmp_path / "b", {"f.py": ("two\n", False), "0": ("* -diff\n", False), ".gitattributes": ("* -diff\n", False)})
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    monkeypatch.setenv("GIT_DIFF_OPTS", "-u0")
    patch = patch_between(tmp_path / "a", tmp_path / "b")
    assert "-one\n+two\n" in patch
    assert "+* -diff\n" in patch
