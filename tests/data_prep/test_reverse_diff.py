"""A reversed diff undoes the diff, byte for byte; git is the judge."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from data_prep.common.reverse_diff import DiffError, reverse_diff


def git(folder: Path, *arguments: str, text: str | None = None) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "core.autocrlf=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode & 0o111) for path in files}


def scrambled(lines: list[str], draw: random.Random) -> list[str]:
    out = []
    for line in lines:
        kind = draw.random()
        if kind < 0.15:
            out.append(f"-- {line}")
        elif kind < 0.3:
            out += [line, f"++ new {draw.random()}"]
        elif kind > 0.4:
            out.append(line)
    return out


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    return tmp_path


def both_ways(folder: Path) -> tuple[str, str]:
    """The diff of what is changed and not yet committed, and ours of it."""
    git(folder, "add", "-A")
    diff = git(folder, "diff", "--cached", "-M")
    return diff, reverse_diff(diff)


def test_it_undoes_random_changes_of_files(repository):
    draw = random.Random(3)
    for number in range(25):
        lines = [draw.choice(["", "a", "-b", "+c", " d", "@@ -1 +1 @@"]) + str(draw.random())[:4] for _ in range(40)]
        end = draw.choice(["", "\n"])
        (repository / "f.txt").write_text("\n".join(lines) + end)
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "--allow-empty", "-m", "before")
        before = tree(repository)
        (repository / "f.txt").write_text("\n".join(scrambled(lines, draw)) + draw.choice(["", "\n"]))
        diff, back = both_ways(repository)
        if not diff:
            continue
        after = tree(repository)
        assert reverse_diff(back) == diff, number
        git(repository, "apply", "--index", "-", text=back)
        assert tree(repository) == before
        git(repository, "apply", "--index", "-", text=diff)
        assert tree(repository) == after
        git(repository, "commit", "-q", "-m", "after")


def test_it_undoes_new_deleted_renamed_and_executable_files(repository):
    for name in ("gone", "moved", "mode", "same"):
        (repository / f"{name}.py").write_text("".join(f"{name} {number}\n" for number in range(30)))
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "before")
    before = tree(repository)
    (repository / "new.py").write_text("one\ntwo\n")
    (repository / "gone.py").unlink()
    (repository / "moved.py").rename(repository / "elsewhere.py")
    (repository / "elsewhere.py").write_text((repository / "elsewhere.py").read_text().replace("moved 7", "moved"))
    (repository / "mode.py").chmod(0o755)
    diff, back = both_ways(repository)
    for head in ("new file mode", "deleted file mode", "rename from", "rename to", "old mode", "new mode"):
        assert head in diff
        assert head in back
    assert back.index("rename from elsewhere.py") < back.index("rename to moved.py")
    assert reverse_diff(back) == diff
    git(repository, "apply", "--index", "-", text=back)
    assert tree(repository) == before


@pytest.mark.parametrize(
    ("diff", "words"),
    [
        ("no diff at all\n", "no hunk"),
        ("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n+b\n", "lines that its head says"),
        ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n-b\n+c\n", "lines that its head says"),
        ("diff --git a/x b/x\nGIT binary patch\nliteral 3\n", "more than lines of text"),
    ],
)
def test_what_cannot_be_reversed_says_why(diff, words):
    with pytest.raises(DiffError, match=words):
        reverse_diff(diff)
