"""`sed -i` carried out on known texts, against GNU sed itself where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from data_prep.trajectories.partial_file import LostError, Text
from data_prep.trajectories.quoting import exact_value
from data_prep.trajectories.sed import run_sed, sed_arguments


def whole(lines: list[str]) -> Text:
    text = Text()
    text.see(1, lines, to_end=True)
    return text


def has_gnu_sed() -> bool:
    if shutil.which("sed") is None:
        return False
    return "GNU" in subprocess.run(["sed", "--version"], capture_output=True, text=True, check=False).stdout


LINES = [
    "foo",
    "bar",
    "a.b",
    "x*y",
    "(z)",
    "  def f(self):",
    "[q]",
    "tab\tx",
    "foo foo",
    "/path/to",
    "a+b",
    "$end",
    "^s",
]
PATTERNS = ["foo", r"a\.b", r"\(fo\)o", "[^ab]", r"x\*y", "^", "$", "o*", r"fo\+", r"\s*def", "(z)", r"\[q\]", "a+b"]
PATTERNS += [r"\bfoo\b", "[[:space:]]", r"\(a\|f\)", r"[^\s:@\/]", "^s", "end$", r"\$end", ".", r"\/path\/to"]
REPLACEMENTS = ["X", "&&", r"[\1]", r"\n", r"a\tb", r"\&", "", r"q\/r", "a b"]
ADDRESSES = ["", "2", "3,5", "2,$", "$", "/foo/", "/def/,/foo/", "3,/bar/", "2!", "/foo/!", "5,2"]
TEXTS = [
    "\\   indented",
    "  text",
    "\\        if x:\\n            y\\tz",
    "\\\n  next line",
    "hello\\nworld",
    "a\\\\b",
    "\\x\\\ny",
]


def a_program(rng: Random) -> str:
    address, what = rng.choice(ADDRESSES), rng.random()
    if what < 0.5:
        pattern, replacement = rng.choice(PATTERNS), rng.choice(REPLACEMENTS)
        if r"\1" in replacement and r"\(" not in pattern:
            replacement = "X"
        return f"{address}s/{pattern}/{replacement}/{rng.choice(['', 'g', '2', 'gI', 'I', '2g'])}"
    return address + ("d" if what < 0.6 else rng.choice("aic") + rng.choice(TEXTS))


@pytest.mark.skipif(not has_gnu_sed(), reason="GNU sed is not installed; its rules are checked by hand below")
def test_the_same_as_gnu_sed(tmp_path: Path):
    """400 random programs on random files; what is refused is not counted."""
    rng = Random(11)
    same = 0
    for _ in range(400):
        lines = [rng.choice([*LINES, ""]) for _ in range(rng.randint(1, 8))]
        programs = [a_program(rng) for _ in range(rng.choice([1, 1, 1, 2]))]
        path = tmp_path / "file"
        path.write_text("".join(f"{line}\n" for line in lines))
        command = ["sed", "-i", *(part for program in programs for part in ("-e", program)), str(path)]
        done = subprocess.run(command, capture_output=True, check=False)
        text = whole(lines)
        try:
            run_sed(text, programs)
        except LostError:
            continue
        if done.returncode == 0:
            same += 1
            assert "".join(f"{line}\n" for line in text.lines) == path.read_text(), (programs, lines)
    assert same > 300


@pytest.mark.parametrize(
    ("program", "extended", "expected"),
    [
        ("2s/b/B/", False, ["a.b", "B b b", "c"]),
        ("s/b/B/g", False, ["a.B", "B B B", "c"]),
        ("s|a.b|x/y|", False, ["x/y", "b b b", "c"]),
        ("s/(a)\\.(b)/\\2\\1/", True, ["ba", "b b b", "c"]),
        ("2,3d", False, ["a.b"]),
        ("$d", False, ["a.b", "b b b"]),
        ("2i\\    new", False, ["a.b", "    new", "b b b", "c"]),
        ("/c/a one\\n two", False, ["a.b", "b b b", "c", "one", " two"]),
        ("1,2c\\new", False, ["new", "c"]),
        ("2d;s/c/C/", False, ["a.b", "C"]),
    ],
)
def test_by_hand(program, extended, expected):
    text = whole(["a.b", "b b b", "c"])
    run_sed(text, [program], extended)
    assert text.lines == expected


@pytest.mark.parametrize(
    "program",
    ["1r other", "{p}", "s/a/\\U&/", "s/a/b/w out", "1~2d", "s/a", "s/(a*)*b/x/", "y/a/b/", "0,/a/d", "9999999999d"],
)
def test_what_is_not_known_is_refused(program):
    text = whole(["a", "b"])
    with pytest.raises(LostError):
        run_sed(text, [program], extended=True)
    assert text.lines == ["a", "b"]


def test_lines_that_were_not_shown_are_not_guessed():
    text = Text()
    text.see(10, ["ten", "eleven"])
    run_sed(text, ["11s/eleven/12/"])
    assert text.lines[9:] == ["ten", "12"]
    for program in ("s/ten/x/", "/ten/d", "$d", "9d", "12s/a/b/"):
        with pytest.raises(LostError):
            run_sed(text, [program])


def test_arguments():
    assert sed_arguments(["-i", "-e", "1d", "-e", "2d", "a.py", "b.py"]) == (["1d", "2d"], ["a.py", "b.py"], False)
    assert sed_arguments(["-i.bak", "-E", "s/a/b/", "a.py"]) == (["s/a/b/"], ["a.py"], True)
    assert sed_arguments(["-i", "s/a/b/", None]) == (["s/a/b/"], [None], False)
    with pytest.raises(LostError):
        sed_arguments(["-i", None, "a.py"])


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("plain", "plain"),
        ("'a b'", "a b"),
        ("'a'\\''b'", "a'b"),
        ('"a \\"b\\" \\$c \\n"', 'a "b" $c \\n'),
        ("$'a\\tb\\n\\x41\\''", "a\tb\nA'"),
        ("a\\ b", "a b"),
        ("\"$(cat <<'EOF'\nx = '$y'\n\nEOF\n)\"", "x = '$y'"),
        ('"$HOME/x"', None),
        ("*.py", None),
        ("`ls`", None),
        ("'open", None),
    ],
)
def test_values_of_words(raw, value):
    assert exact_value(raw) == value
