"""`sed -i` carried out by GNU sed on known texts and on texts of which some lines are not known."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import pytest

from data_prep.trajectories import partial_file
from data_prep.trajectories.partial_file import LostError, Text, gnu_sed, run_sed, sed_arguments
from data_prep.trajectories.shell import Word, pipelines
from data_prep.trajectories.writes import stream_edit

needs_sed = pytest.mark.skipif(not gnu_sed(), reason="GNU sed is not installed")


def whole(lines: list[str]) -> Text:
    text = Text()
    text.see(1, lines, to_end=True)
    return text


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
        program = f"{address}s/{pattern}/{replacement}/{rng.choice(['', 'g', '2', 'gI', 'I', '2g'])}"
    elif what < 0.7:
        program = f"{address}d"
    else:
        return address + rng.choice("aic") + rng.choice(TEXTS)
    return program if rng.random() < 0.7 else f"{program};{a_program(rng)}"


@needs_sed
def test_partly_known_texts_become_what_the_whole_becomes(tmp_path: Path):
    """600 random programs on random files with hidden lines; only what cannot be known is refused."""
    rng = Random(11)
    done = {True: 0, False: 0}
    for _ in range(600):
        lines = [rng.choice([*LINES, ""]) for _ in range(rng.randint(5, 9))]
        arguments = [part for _ in range(rng.choice([1, 1, 1, 2])) for part in ("-e", a_program(rng))]
        path = tmp_path / "file"
        path.write_text("".join(f"{line}\n" for line in lines))
        if subprocess.run(["sed", "-i", *arguments, str(path)], capture_output=True, check=False).returncode:
            continue
        text, hide = Text(), rng.choice([0.0, 0.3, 0.6])
        seen = [number for number in range(1, len(lines) + 1) if rng.random() >= hide]
        for number in seen:
            text.see(number, [lines[number - 1]], to_end=number == len(lines) and rng.random() < 0.5)
        whole_file = text.known
        try:
            run_sed(text, arguments)
        except LostError:
            assert not whole_file, (arguments, lines)
            continue
        done[whole_file] += 1
        expected = path.read_text().split("\n")[:-1]
        for place, line in enumerate(text.lines):
            assert isinstance(line, int) or line == expected[place], (arguments, lines, seen, text.lines, expected)
        assert not text.whole or len(text.lines) == len(expected)
    assert done[True] > 75
    assert done[False] > 50


@needs_sed
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-E", "-e", "s/(a)\\.(b)/\\2\\1/"], ["ba", "b b b", "c"]),
        (["-e", "2i\\    new"], ["a.b", "    new", "b b b", "c"]),
        (["-e", "/c/a one\\n two"], ["a.b", "b b b", "c", "one", " two"]),
        (["-n", "-e", "2p"], ["b b b"]),
        (["-e", "/b b/{s/b/\\U&/2;n;y/c/C/}"], ["a.b", "b B b", "C"]),
    ],
)
def test_by_hand(arguments, expected):
    text = whole(["a.b", "b b b", "c"])
    run_sed(text, arguments)
    assert text.lines == expected


@needs_sed
@pytest.mark.parametrize(
    "program",
    [
        "1r /etc/passwd",
        "s/a/b/w out",
        "w out",
        "e id",
        "s/a/b/e",
        "s/a",
        ":a;ba",
        ":a;p;ba",
        ":a;s/^/aaaaaaaaaa/;ta",
        "d\0",
    ],
)
def test_what_reads_writes_or_never_ends_is_refused(program, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(partial_file, "SECONDS", 1)
    text = whole(["a", "b"])
    with pytest.raises(LostError):
        run_sed(text, ["-e", program])
    assert text.lines == ["a", "b"]
    assert list(tmp_path.iterdir()) == []


@needs_sed
def test_lines_that_were_not_shown_are_not_guessed():
    text = Text()
    text.see(10, ["ten", "eleven"])
    run_sed(text, ["-e", "11s/eleven/12/"])
    assert text.lines[9:] == ["ten", "12"]
    for program in ("s/ten/x/", "/ten/d", "$d", "9d", "12s/a/b/", "9999999999d", "10s/x/y/;d", "10!d", "10a x\n1d"):
        with pytest.raises(LostError):
            run_sed(text, ["-e", program])
    assert text.lines[9:] == ["ten", "12"]


def test_without_gnu_sed_an_edit_is_not_understood_and_that_is_said_once(monkeypatch):
    monkeypatch.setattr(partial_file.shutil, "which", lambda name: None)
    gnu_sed.cache_clear()
    text = whole(["a"])

    def edit():
        for _ in range(2):
            with pytest.raises(LostError, match="GNU sed is not installed"):
                run_sed(text, ["-e", "s/a/b/"])

    with pytest.warns(UserWarning, match="GNU sed is not installed") as said:
        edit()
    gnu_sed.cache_clear()
    assert (len(said), text.lines) == (1, ["a"])


@pytest.mark.parametrize(
    ("command", "arguments", "files"),
    [
        ("sed -i -e 1d -e 2d a.py b.py", ["-e", "1d", "-e", "2d"], ["a.py", "b.py"]),
        ("sed -i.bak -E 's/a/b/' a.py", ["-E", "-e", "s/a/b/"], ["a.py"]),
        ("sed --in-place --expression='s/a/b/' a.py", ["-e", "s/a/b/"], ["a.py"]),
        ("sed -Ei '' 1d $FILE", ["-E", "-e", "1d"], [None]),
        ("sed -i $PROGRAM a.py", None, ["a.py"]),
        ("sed -i -f program 1d a.py", None, ["program", "1d", "a.py"]),
    ],
)
def test_arguments(command, arguments, files):
    edit = stream_edit(pipelines(command)[0][0].words[1:])
    assert edit.in_place
    if arguments is None:
        with pytest.raises(LostError):
            sed_arguments(edit)
    else:
        assert (sed_arguments(edit), [word.exact for word in edit.files]) == (arguments, files)


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
    assert Word(0, len(raw), raw).exact == value
