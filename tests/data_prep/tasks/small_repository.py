"""A small repository with a bug, its history, and rows of public tables about it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

WRONG = "def area(width, height):\n    return width + height\n"
RIGHT = "def area(width, height):\n    return width * height\n"
FIX = """\
diff --git a/shapes/box.py b/shapes/box.py
--- a/shapes/box.py
+++ b/shapes/box.py
@@ -1,2 +1,2 @@
 def area(width, height):
-    return width + height
+    return width * height
"""
TESTS = """\
diff --git a/tests/test_area.py b/tests/test_area.py
new file mode 100644
--- /dev/null
+++ b/tests/test_area.py
@@ -0,0 +1,5 @@
+from shapes.box import area
+
+
+def test_area():
+    assert area(2, 3) == 6
"""
ZERO = "from shapes.box import area\n\n\ndef test_zero():\n    assert area(0, 0) == 0\n"
MUST, KEEP = "tests/test_area.py::test_area", "tests/test_zero.py::test_zero"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def git(folder: Path, *arguments: str) -> str:
    named = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **named}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repository(folder: Path) -> tuple[str, str]:
    """A repository in ``folder`` with two commits, the bug and its repair; returns both, the repair is checked out."""
    write(folder, {"shapes/__init__.py": "", "shapes/box.py": WRONG, "tests/test_zero.py": ZERO, "README": "shapes\n"})
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "boxes")
    before = git(folder, "rev-parse", "HEAD")
    write(folder, {"shapes/box.py": RIGHT})
    git(folder, "commit", "-q", "-am", "the area of a box is a product")
    return before, git(folder, "rev-parse", "HEAD")


def bench_row(commit: str, **changed: Any) -> dict[str, Any]:
    """A row as SWE-bench has it."""
    return {
        "instance_id": "ann__shapes-1", "repo": "ann/shapes", "base_commit": commit, "patch": FIX, "test_patch": TESTS,
        "problem_statement": "The area of a box is wrong.", "version": "1.0", "hints_text": "", "created_at": "2024",
        "FAIL_TO_PASS": json.dumps([MUST]), "PASS_TO_PASS": json.dumps([KEEP]), **changed,
    }  # fmt: skip


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
