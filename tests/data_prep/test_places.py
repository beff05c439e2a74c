"""What a patch touches: files that count, and the function or class around each change."""

from __future__ import annotations

import ast
import difflib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_records import PATCH, SOURCE, came_back, mini_v1, said

from data_prep.trajectories.edited_symbols import PatchError, Place, indent_of, is_code, touched, walk_up
from data_prep.trajectories.readers import parse_record
from data_prep.trajectories.readers.records import Location, RawRecord
from data_prep.trajectories.run import AgentRun

CODE = '''"""A module.

def not_this(): text in a docstring
"""
import os

LIMIT = [
    1,
    2,
]


class Outer:
    """Doc.

class NotThis: at the margin of a docstring
    """

    size = 3

    @property
    def first(
        self,
        value=(
            1,
        ),
    ) -> int:
        """Say.

        More.
        """
        if value:
            text = """
at the margin
"""
            for item in text:
                print(item)

        return 1

    class Inner:
        def deep(self):
            def nested():
                return 2

            return nested

    async def second(self):
        await self.first


def top():
    return 4


if LIMIT:
    print(
        5
    )
'''
LINES = CODE.splitlines()


def run_with(*messages: dict) -> AgentRun:
    record = mini_v1()
    record["messages"] = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, *messages]
    run = parse_record(RawRecord(Location(""), json.dumps(record).encode()))
    assert isinstance(run, AgentRun)
    return run


def patch_of(
    before: list[str], after: list[str], path: str = "pkg/a.py", context: int = 3, headings: bool = True
) -> str:
    """A diff as git writes it, with the heading that git would give: the last line above that starts at the margin."""
    lines = list(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", lineterm="", n=context))
    for index, line in enumerate(lines):
        if line.startswith("@@") and headings:
            start = int(line.split()[1][1:].split(",")[0])
            above = [text for text in before[: max(start - 1, 0)] if text[:1].isalpha() or text.startswith(("_", "$"))]
            lines[index] = line + (f" {above[-1][:80]}" if above else "")
    return f"diff --git a/{path} b/{path}\n" + "\n".join(lines) + "\n"


def changed(text: str, number: int | None = None) -> list[str]:
    """The code with the one line that holds a text changed."""
    (index,) = [index for index, line in enumerate(LINES) if text in line]
    return [*LINES[:index], LINES[index] + "  # changed", *LINES[index + 1 :]]


def inserted(after: str, new: list[str]) -> list[str]:
    (index,) = [index for index, line in enumerate(LINES) if after in line]
    return [*LINES[: index + 1], *new, *LINES[index + 1 :]]


WHERE = [
    ("size = 3", "Outer", "class"),
    ("print(item)", "Outer.first", "function"),
    ("return 1", "Outer.first", "function"),
    ("return 2", "Outer.Inner.deep.nested", "function"),
    ("return nested", "Outer.Inner.deep", "function"),
    ("await self.first", "Outer.second", "function"),
    ("async def second", "Outer.second", "function"),
    ("class Inner", "Outer.Inner", "class"),
    ("return 4", "top", "function"),
    ("if LIMIT", "", "module"),
    ("import os", "", "module"),
]


def whole_view() -> AgentRun:
    return run_with(said("cat pkg/a.py"), came_back(CODE))


@pytest.mark.parametrize(("text", "symbol", "kind"), WHERE)
def test_with_the_whole_text_the_place_is_exact(text, symbol, kind):
    patch = patch_of(LINES, changed(text), headings=False)
    assert touched(patch, whole_view()) == [Place("pkg/a.py", symbol, kind)]


@pytest.fixture
def without_text_at_the_margin(monkeypatch):
    """git takes such text for headings, so headings are wrong where it is; the tests above have it."""
    clean = [line for line in LINES if "at the margin" not in line]
    monkeypatch.setattr("test_places.LINES", clean)


@pytest.mark.usefixtures("without_text_at_the_margin")
@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("return 4", "top"),
        ("async def second", "Outer.second"),
        ("await self.first", "Outer.second"),
        ("print(item)", "Outer"),
        ("size = 3", "Outer"),
        ("import os", ""),
    ],
)
def test_headings_alone(text, symbol):
    (place,) = touched(patch_of(LINES, changed(text)))
    assert place.symbol == symbol


@pytest.mark.usefixtures("without_text_at_the_margin")
def test_a_view_of_the_part_above_names_the_method():
    numbered = "".join(f"{number:6}\t{line}\n" for number, line in enumerate(LINES, 1) if 20 <= number <= 40)
    run = run_with(said("nl -ba pkg/a.py | sed -n '20,40p'"), came_back(numbered))
    (place,) = touched(patch_of(LINES, changed("print(item)")), run)
    assert (place.symbol, place.kind) == ("Outer.first", "function")


@pytest.mark.usefixtures("without_text_at_the_margin")
def test_a_view_after_unknown_edits_still_helps():
    moved = "".join(f"{number + 7:6}\t{line}\n" for number, line in enumerate(LINES, 1) if 20 <= number <= 40)
    run = run_with(
        said("cat pkg/a.py | head -3"),
        came_back("\n".join(LINES[:3]) + "\n"),
        said("perl -pi -e 's/x/y/' pkg/a.py"),
        came_back(""),
        said("nl -ba pkg/a.py | sed -n '27,47p'"),
        came_back(moved),
    )
    (place,) = touched(patch_of(LINES, changed("print(item)")), run)
    assert place.symbol == "Outer.first"


def test_grep_shows_where_definitions_are():
    found = "".join(
        f"{number}:{line}\n" for number, line in enumerate(LINES, 1) if "def top" in line or "return 4" in line
    )
    run = run_with(said('grep -n "top\\|return 4" pkg/a.py'), came_back(found))
    patch = patch_of(LINES, changed("return 4"), context=0, headings=False)
    assert touched(patch)[0].symbol == ""
    assert touched(patch, run)[0].symbol == "top"


@pytest.mark.parametrize(
    ("after", "new", "symbol"),
    [
        ("return 1", ["        # at the end of the method"], "Outer.first"),
        ("await self.first", ["", "    def third(self):", "        return 3"], "Outer"),
        ("return 4", ["    return 5"], "top"),
        ("return 4", ["", "", "def other():", "    return 5"], ""),
    ],
)
def test_new_lines_belong_where_their_indentation_says(after, new, symbol):
    (place,) = touched(patch_of(LINES, inserted(after, new)), whole_view())
    assert place.symbol == symbol


def test_several_places_in_one_hunk():
    after = [line + "  # changed" if line.strip() in ("return nested", "await self.first") else line for line in LINES]
    places = touched(patch_of(LINES, after), whole_view())
    assert [place.symbol for place in places] == ["Outer.Inner.deep", "Outer.second"]


def test_the_same_symbol_twice_is_one_place():
    after = [line + "  # changed" if line.strip() in ("if value:", "return 1") else line for line in LINES]
    (place,) = touched(patch_of(LINES, after, context=1), whole_view())
    assert place.symbol == "Outer.first"


def test_what_does_not_count():
    parts = [
        patch_of(["a", "b"], ["a", "c"], path) for path in ("tests/test_a.py", "docs/a.rst", "CHANGES.txt", "uv.lock")
    ]
    assert touched("".join(parts)) == []
    new = "diff --git a/n.py b/n.py\nnew file mode 100644\n--- /dev/null\n+++ b/n.py\n@@ -0,0 +1,1 @@\n+x = 1\n"
    assert touched(new) == []
    renamed = "diff --git a/x.py b/y.py\nsimilarity index 100%\nrename from x.py\nrename to y.py\n"
    assert touched(renamed + PATCH) == touched(PATCH)
    binary = "diff --git a/x.bin b/x.bin\nindex 1..2 100644\nBinary files a/x.bin and b/x.bin differ\n"
    assert touched(binary + PATCH) == touched(PATCH)


@pytest.mark.parametrize("name", ['"{}/pkg/t\\303\\266.py"', "{}/pkg/tö.py", '"{}/pkg/a\\tb\\\\.py"'])
def test_paths_as_git_quotes_them(name):
    hunk = "@@ -9,2 +9,2 @@ def outer():\n     a = 1\n-    b = 2\n+    b = 3\n"
    (place,) = touched(f"--- {name.format('a')}\n+++ {name.format('b')}\n{hunk}")
    assert place.symbol == "outer"
    assert place.file in ("pkg/tö.py", "pkg/a\tb\\.py")


def test_a_submodule_is_no_code():
    moved = "diff --git a/sub b/sub\nindex 1111111..2222222 160000\n--- a/sub\n+++ b/sub\n@@ -1 +1 @@\n"
    moved += "-Subproject commit 1111111\n+Subproject commit 2222222\n"
    assert touched(moved) == []
    assert touched(moved + PATCH) == touched(PATCH)


def test_other_languages_have_files_but_no_symbols():
    (place,) = touched(patch_of(["function f() {", "  return 1", "}"], ["function f() {", "  return 2", "}"], "a.js"))
    assert place == Place("a.js", "", "module")


CODE_PATHS = ["django/db/models/query.py", "django/test/client.py", "pkg/history.py", "pkg/latest.py"]
CODE_PATHS += ["pkg/lock.py", "pkg/cli/changelog.py", "requirements.txt"]
OTHER_PATHS = [
    "test/x.py",
    "pkg/tests/x.py",
    "pkg/test_x.py",
    "pkg/x_test.py",
    "conftest.py",
    "docs/conf.py",
    "README.md",
]
OTHER_PATHS += ["CHANGELOG.md", "HISTORY", "changelog.d/12.bugfix", "poetry.lock", "web/package-lock.json", "go.sum"]


def test_paths_of_code():
    assert [path for path in CODE_PATHS + OTHER_PATHS if is_code(path)] == CODE_PATHS


@pytest.mark.parametrize("patch", ["", "  \n"])
def test_an_empty_patch(patch):
    with pytest.raises(PatchError, match="empty patch") as caught:
        touched(patch)
    assert caught.value.args[0] == "empty patch"


@pytest.mark.parametrize(
    "patch",
    [
        "I fixed it.",
        "--- a/x.py\n+++ b/x.py\n@@ -1,9 +1,9 @@\n a\n",
        PATCH.replace(" class", "?class"),
    ],
)
def test_a_patch_that_does_not_parse(patch):
    with pytest.raises(PatchError) as caught:
        touched(patch)
    assert caught.value.args[0] == "patch does not parse"


@pytest.mark.parametrize(
    ("heading", "symbol"),
    [("def outer():", "outer"), ("class Outer:", "Outer"), ("    def method(self, x):", "method"), ("x = 1", "")],
)
def test_what_a_heading_can_say(heading, symbol):
    patch = f"--- a/p.py\n+++ b/p.py\n@@ -9,2 +9,2 @@ {heading}\n         a = 1\n-        b = 2\n+        b = 3\n"
    assert touched(patch)[0].symbol == symbol
    shown = [*[""] * 3, "class Real:", *[""] * 3, "    def method(self, x):", "        a = 1", "        b = 2"]
    run = run_with(said("cat p.py"), came_back("".join(f"{line}\n" for line in shown)))
    # a function at the margin settles it; a class, a method and a statement do not
    assert touched(patch, run)[0].symbol == ("outer" if symbol == "outer" else "Real.method")


def test_a_patch_of_the_story():
    assert touched(PATCH) == [Place("pkg/calc.py", "Calc.twice", "function")]
    run = run_with(said("cat pkg/calc.py"), came_back(SOURCE))
    assert touched(re.sub(" @@ .*", " @@", PATCH), run) == touched(PATCH)


@st.composite
def programs(draw, depth: int = 0) -> list[str]:
    """Nested definitions, loops and statements."""
    lines: list[str] = []
    pad = "    " * depth
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["def", "class", "if", "line", "call", "string"]))
        name = draw(st.sampled_from("abcdef"))
        if kind in ("def", "class", "if") and depth < 3:
            head = {"def": f"def {name}(x):", "class": f"class {name.upper()}:", "if": "if x:"}[kind]
            lines += [pad + head, *draw(programs(depth + 1)), *([""] * draw(st.integers(0, 2)))]
        elif kind == "call":
            lines += [f"{pad}{name}(", f"{pad}    x", f"{pad})"]
        elif kind == "string":
            lines += [f'{pad}{name} = """', f"  {name}", '"""']
        else:
            lines.append(f"{pad}{name} = x")
    return lines


def parsed(text: str, line: int, indent: int) -> str:
    """The name of the innermost definition around something indented so at a line, by Python's own parser."""
    best, stack = (10**6, ""), [(ast.parse(text), "")]
    while stack:
        node, name = stack.pop()
        for child in ast.iter_child_nodes(node):
            inner = f"{name}.{child.name}".lstrip(".") if isinstance(child, ast.FunctionDef | ast.ClassDef) else name
            stack.append((child, inner))
            if inner != name and child.lineno <= line <= child.end_lineno and child.col_offset < indent:
                best = min(best, (child.end_lineno - child.lineno, inner))
    return best[1]


@given(programs())
def test_indentation_says_the_same_as_the_parser(lines):
    numbered = dict(enumerate(lines, 1))
    inside = False
    for number, line in numbered.items():
        in_string = inside
        inside ^= line.count('"""') % 2 == 1
        if in_string or not line.strip() or line.strip() == ")":
            continue
        indent = indent_of(line) + (line.lstrip().startswith(("def", "class")))
        assert walk_up(numbered, number, indent).symbol()[0] == parsed("\n".join(lines) + "\n", number, indent), number
